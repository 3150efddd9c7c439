// Counts the immediates of a link, so that a notice stands for all of its queue pairs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "transport/rdma/limits.h"

namespace rdma_kv::transport::rdma {

// Each queue pair of a link announces a write's tag after its own part of the write: the write is
// visible when all of them have. Two writes with one tag may overlap, hence counts and not marks.
class NoticeCounter {
 public:
  enum class Seen { kWait, kDeliver, kTooMany };

  explicit NoticeCounter(std::size_t queue_pairs) noexcept : queue_pairs_(queue_pairs) {}

  // `queue_pair` has announced `tag`. kDeliver: now all of them have, once more.
  Seen see(std::uint32_t tag, std::size_t queue_pair);

 private:
  struct Pending {
    std::array<std::uint32_t, kMostQueuePairs> counts{};
    std::uint32_t missing = 0;  // queue pairs whose count is 0
    std::uint32_t total = 0;
  };

  std::size_t queue_pairs_;
  std::unordered_map<std::uint32_t, Pending> pending_;
  std::size_t outstanding_ = 0;  // announcements that wait for others
};

}  // namespace rdma_kv::transport::rdma
