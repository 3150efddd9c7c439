// Who may add to what waits, and who is told when there is room again.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <vector>

namespace rdma_kv::engine {

using Calls = std::vector<std::function<void()>>;

// Counts what waits of one origin. Those who are held up are told when half of it was taken, not
// before, so that it does not happen at every one. Not safe from several threads.
class WaitingRoom {
 public:
  explicit WaitingRoom(std::size_t limit) noexcept : limit_(limit) {}

  bool is_empty() const noexcept { return waiting_ == 0; }
  bool is_full() const noexcept { return waiting_ >= limit_; }
  // What had arrived before its sender was held up is still taken in, up to this.
  bool is_overfull() const noexcept { return waiting_ >= 2 * limit_; }

  // True when that made it full.
  bool add() noexcept { return ++waiting_ == limit_; }

  void release(Calls& calls) {
    if (--waiting_ > limit_ / 2) return;
    for (auto& [who, call] : held_up_) calls.push_back(std::move(call));
    held_up_.clear();
  }

  void hold_up(const void* who, const std::function<void()>& go_on) {
    held_up_.insert_or_assign(who, go_on);
  }
  void forget(const void* who) noexcept { held_up_.erase(who); }

 private:
  const std::size_t limit_;
  std::size_t waiting_ = 0;
  std::map<const void*, std::function<void()>> held_up_;
};

}  // namespace rdma_kv::engine
