// The tags that a decode peer has revoked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_set>

namespace rdma_kv::engine {

// Remembers the last kMost; an engine that revokes more forgets the oldest, whose writes are long
// over. Decode keeps the same list (rdma_kv/_revocation.py) and tells it to a peer that connects.
class RevokedTags {
 public:
  static constexpr std::size_t kMost = 65536;

  bool contains(std::uint32_t tag) const { return !tags_.empty() && tags_.contains(tag); }

  void add(std::uint32_t tag) {
    if (!tags_.insert(tag).second) return;
    order_.push_back(tag);
    if (order_.size() <= kMost) return;
    tags_.erase(order_.front());
    order_.pop_front();
  }

  void remove(std::uint32_t tag) {
    if (tags_.erase(tag) != 0) std::erase(order_, tag);
  }

 private:
  std::unordered_set<std::uint32_t> tags_;
  std::deque<std::uint32_t> order_;
};

}  // namespace rdma_kv::engine
