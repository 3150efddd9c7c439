// One queue pair's send queue: which slots are taken, and by which write.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "transport/link.h"
#include "transport/rdma/limits.h"
#include "verbs/queue_pair.h"

namespace rdma_kv::transport::rdma {

// Completions of one queue pair come in the order of posting, so the chains under way are a ring.
class SendLane {
 public:
  SendLane(verbs::QueuePair queue_pair, std::uint32_t depth)
      : queue_pair_(std::move(queue_pair)), depth_(depth), chains_(depth) {}

  verbs::QueuePair& queue_pair() noexcept { return queue_pair_; }
  const verbs::QueuePair& queue_pair() const noexcept { return queue_pair_; }

  std::uint32_t depth() const noexcept { return depth_; }
  std::uint32_t room() const noexcept { return depth_ - used_; }
  bool is_idle() const noexcept { return chain_count_ == 0; }

  // Unsignalled work requests were posted whose chain is not whole yet.
  void take_slots(std::uint32_t requests) noexcept {
    used_ += requests;
    loose_ += requests;
  }
  // The chain's signalled end was posted: it and everything loose before it is one chain of `write`.
  void close_chain(Write& write) noexcept {
    chains_[(first_ + chain_count_++) % depth_] = {&write, std::exchange(loose_, 0)};
  }
  // The signalled end of the oldest chain has completed: its slots are free. Returns its write.
  Write& pop_chain() noexcept {
    const Under chain = chains_[first_];
    first_ = (first_ + 1) % depth_;
    --chain_count_;
    used_ -= chain.requests;
    return *chain.write;
  }

 private:
  struct Under {
    Write* write;
    std::uint32_t requests;
  };

  verbs::QueuePair queue_pair_;
  std::uint32_t depth_;
  std::vector<Under> chains_;
  std::uint32_t first_ = 0;
  std::uint32_t chain_count_ = 0;
  std::uint32_t used_ = 0;
  std::uint32_t loose_ = 0;
};

}  // namespace rdma_kv::transport::rdma
