// Where notices end up; an input says when too many of them wait to be taken.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "input.h"
#include "transport/inbound.h"

namespace fuzz {

class Notices : public rdma_kv::transport::NoticeSink {
 public:
  bool deliver(const rdma_kv::transport::Origin& origin, std::uint32_t tag) noexcept override {
    MUST(tag != 0);
    tags.push_back(tag);
    epochs.insert(origin.epoch);
    return !is_full_;
  }

  bool wait_for_room(const rdma_kv::transport::Origin&, const void* who,
                     const std::function<void()>& go_on) noexcept override {
    if (is_full_) waiting_.insert_or_assign(who, go_on);
    return is_full_;
  }
  void stop_waiting(const rdma_kv::transport::Origin&, const void* who) noexcept override {
    waiting_.erase(who);
  }
  bool has_reserve(const rdma_kv::transport::Origin&) noexcept override { return true; }

  void fill() { is_full_ = was_full_ = true; }
  void make_room() {
    is_full_ = false;
    for (const auto& [who, go_on] : std::exchange(waiting_, {})) go_on();
  }
  bool was_full() const { return was_full_; }

  std::vector<std::uint32_t> tags;
  std::set<std::uint64_t> epochs;  // of whoever made one

 private:
  std::map<const void*, std::function<void()>> waiting_;
  bool is_full_ = false;
  bool was_full_ = false;
};

}  // namespace fuzz
