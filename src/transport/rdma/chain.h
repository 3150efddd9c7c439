// Turns what is left of a write into one linked run of work requests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kv/plan.h"
#include "transport/link.h"
#include "transport/rdma/keys.h"
#include "transport/rdma/limits.h"
#include "verbs/lib.h"

namespace rdma_kv::transport::rdma {

struct ChainLimits {
  std::uint64_t most_message_bytes;
  std::uint32_t most_sources;  // of one work request
  bool flush;                  // read back what was written before its notice
  ibv_sge scratch;             // where to
};

// Reused from chain to chain; nothing is allocated. Extents that are remote neighbours with
// scattered sources share a work request; those above the largest message are cut.
//
// With `flush`, a READ follows the last piece of each region in each chain, on the queue pair that
// wrote it: its answer comes after everything before it is where the peer's GPU reads.
class Chain {
 public:
  Chain(const KeyTable& local, KeyTable remote, const ChainLimits& limits);

  // Fills at most `most` (kLeastChain..kChain) work requests. One is kept free for append_notice().
  void fill(Write& write, std::uint32_t most) noexcept;
  // Nothing of the write is left to fill a chain with.
  bool is_exhausted(const Write& write) const noexcept {
    return staged_ == staged_end_ && write.cursor.at_end();
  }
  // Nothing of the write is left behind this chain.
  bool is_last() const noexcept { return is_last_; }
  // Adds the immediate; after a read-back it waits for the answers.
  void append_notice(std::uint32_t tag) noexcept;
  // A chain of nothing but the notice.
  void fill_notice(std::uint32_t tag) noexcept;
  // Gives all work requests this id, signals the last and marks it with bit 0 of its id.
  ibv_send_wr* seal(std::uint64_t id) noexcept;

  std::uint32_t size() const noexcept { return size_; }
  // Forgets extents that were fetched from a write and not posted.
  void forget() noexcept { staged_ = staged_end_ = 0; }

 private:
  bool stage(Write& write) noexcept;
  bool join_last(const kv::Extent& extent, std::uint64_t bytes, std::uint32_t lkey,
                 std::uint32_t rkey) noexcept;
  void add_write(const kv::Extent& extent, std::uint64_t bytes, std::uint32_t lkey,
                 std::uint32_t rkey) noexcept;
  void add_read_back() noexcept;
  ibv_send_wr& add(ibv_wr_opcode opcode) noexcept;

  const KeyTable& local_;
  const KeyTable remote_;
  const bool flush_;
  const std::uint32_t most_sources_;
  const std::uint64_t most_message_bytes_;
  std::array<ibv_sge, kFlushBytes + 1> read_targets_{};  // by length; all to the same scratch

  std::array<ibv_send_wr, kChain> requests_{};
  std::array<ibv_sge, kChainSources> sources_{};
  std::array<kv::Extent, kChain> extents_{};
  std::uint32_t staged_ = 0;  // extents_[staged_, staged_end_) are fetched and not yet in a chain
  std::uint32_t staged_end_ = 0;

  std::uint32_t size_ = 0;
  std::uint32_t source_count_ = 0;
  bool is_last_ = false;
  // The write that the next piece may join; empty at the start of a chain.
  ibv_send_wr* open_ = nullptr;
  std::uint32_t open_region_ = 0;
  std::uint64_t open_bytes_ = 0;
};

}  // namespace rdma_kv::transport::rdma
