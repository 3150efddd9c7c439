// Block ids -> the writes to make. Pure arithmetic: knows neither sockets nor NICs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "kv/mapping.h"

namespace rdma_kv::kv {

// Ids as the caller holds them; nothing is copied or widened.
using BlockIds = std::variant<std::span<const std::int32_t>, std::span<const std::int64_t>>;

struct LayerRange {
  std::uint32_t first;
  std::uint32_t count;
};

// `count` blocks that are neighbours, in order, on both sides.
struct Run {
  std::uint32_t src_block;
  std::uint32_t dst_block;
  std::uint32_t count;
};

// One piece to write. Both addresses lie in the same region index of their side.
struct Extent {
  std::uint64_t src;
  std::uint64_t dst;
  std::uint64_t bytes;
  std::uint32_t region;
};

// Up to so many destination blocks the ids of a write are checked against one byte for each (512
// KiB); with more, which only the peer's word may stand for, by sorting the runs of the write. A
// byte and not a bit: blocks in random order would wait for each other's stores to the same word.
inline constexpr std::uint64_t kMostMarkedBlocks = std::uint64_t{1} << 19;

// All pieces of one transfer, in this canonical order: layer, then tensor, then run, then block.
// Both sides of a TCP stream walk it, so the order is part of the wire (docs/wire.md).
//
// A plan is reused from call to call: its memory grows to the largest transfer and stays. It keeps
// runs only; extents are made on the fly, so 80 layers cost no more memory than one.
class Plan {
 public:
  // Checks every id of both sides, then joins neighbours. Nothing may have moved before it returns.
  // Throws Error(kValue): lengths differ, an id is negative or too large, a destination comes
  // twice, the layers are out of range. The plan is empty after a throw.
  void assign(const Mapping& mapping, BlockIds src, BlockIds dst, LayerRange layers);

  // The receiver's half of the same walk, from runs that came over the network: checks each run
  // against the destination's block count; the source side is left at block 0.
  // Returns false, and is empty, when any run or layer is out of range or a block comes twice.
  [[nodiscard]] bool assign_received(const Mapping& mapping, std::span<const Run> runs,
                                     LayerRange layers);

  bool empty() const noexcept { return run_count_ == 0 || layers_.count == 0; }
  std::span<const Run> runs() const noexcept { return {runs_.data(), run_count_}; }
  LayerRange layers() const noexcept { return layers_; }
  std::uint64_t blocks() const noexcept { return blocks_; }
  // Payload over all layers and tensors.
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  template <class Src, class Dst>
  void check_and_join(std::span<const Src> src, std::span<const Dst> dst, const Mapping& mapping);
  void clear() noexcept;

  std::vector<Run> runs_;  // as large as the largest transfer so far
  std::size_t run_count_ = 0;
  LayerRange layers_{0, 0};
  std::uint64_t blocks_ = 0;
  std::uint64_t bytes_ = 0;
  // Both find a destination that comes twice: the first from run to run, the second at once.
  bool begin_marking(std::uint64_t dst_blocks);  // false: there are too many
  bool mark(std::uint32_t first, std::uint32_t count) noexcept;
  bool overlap();

  std::vector<std::uint8_t> seen_;  // by destination block: the last call that it was in
  std::uint8_t call_ = 0;           // this one's number; 0 is nobody's
  std::vector<Run> sorted_;         // for overlap()
};

// A place in a plan. Value type: copy it to remember where to resume. The plan and the mapping
// must outlive it and stay unchanged.
class Cursor {
 public:
  Cursor() = default;
  Cursor(const Plan& plan, const Mapping& mapping) noexcept;
  // Over some runs only: one part of a write that is split over several streams.
  Cursor(std::span<const Run> runs, LayerRange layers, const Mapping& mapping) noexcept;

  // Writes up to `most` further extents to `out`, and returns how many; 0 means the end.
  std::size_t next(Extent* out, std::size_t most) noexcept;
  bool at_end() const noexcept { return layer_ >= layer_end_; }

 private:
  void advance_region() noexcept;

  const Mapping* mapping_ = nullptr;
  const Run* runs_ = nullptr;
  std::size_t run_count_ = 0;
  std::uint32_t layer_ = 0;
  std::uint32_t layer_end_ = 0;
  std::uint32_t tensor_ = 0;
  std::size_t run_ = 0;
  std::uint32_t block_in_run_ = 0;
};

}  // namespace rdma_kv::kv
