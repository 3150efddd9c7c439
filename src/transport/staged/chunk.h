// What a slot of the ring holds: blocks of a write, packed, behind the words that say which.
//
// The ring of prefill and the one of decode have the same shape; a chunk lies in the same slot of
// both. All integers are little-endian; docs/wire.md has the grammar.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/mapping.h"
#include "kv/plan.h"

namespace rdma_kv::transport::staged {

struct RingShape {
  std::uint32_t slots = 0;
  std::uint64_t slot_bytes = 0;

  std::uint64_t bytes() const noexcept { return slots * slot_bytes; }
  std::uint32_t granules_per_slot() const noexcept;
};

// What decode offers to a peer of this mapping. Throws Error(kUnavailable) when one block of one
// layer is too large.
RingShape shape_for(const kv::Mapping& mapping);
// Of a shape that came over the network. Throws Error(kHandshake).
void check_shape(const RingShape& shape, const kv::Mapping& mapping);

// The ring as a link of host memory sees it: blocks of kGranuleBytes.
kv::Layout layout_of(const RingShape& shape, std::uint64_t address);

struct ChunkHead {
  std::uint64_t serial = 0;  // its answer has it
  std::uint32_t tag = 0;     // notice to be delivered with it; 0: none
  kv::LayerRange layers{0, 0};
  std::uint32_t run_count = 0;
};

inline constexpr std::uint64_t kChunkHeadBytes = 32;
inline constexpr std::uint64_t kChunkRunBytes = 8;
inline constexpr std::uint64_t kPayloadAlignment = 256;
inline constexpr std::uint64_t kTensorAlignment = 16;

// Where the payload of a chunk begins in its slot.
std::uint64_t payload_at(std::uint64_t runs) noexcept;

// Where the bytes of `blocks` blocks are in the payload: layer, then tensor, then block.
struct Packing {
  std::array<std::uint64_t, kv::kMostTensors> tensor_at{};  // from its layer's start
  std::uint64_t layer_bytes = 0;
};
Packing pack(const kv::Mapping& mapping, std::uint64_t blocks) noexcept;

// Writes head and runs to where `slot` begins; the runs' bytes must fit.
void encode_chunk(const ChunkHead& head, std::span<const kv::Run> runs, std::uint8_t* slot);

// A chunk as it came. Everything is copied out of the slot before it is looked at: its sender may
// write there at any time.
struct Chunk {
  ChunkHead head;
  std::vector<kv::Run> runs;
  std::uint64_t blocks = 0;  // of all runs
  Packing packing;
  std::uint64_t payload_at = 0;
};
// False when it makes no sense. `plan` is memory for checking.
[[nodiscard]] bool decode_chunk(const std::uint8_t* slot, std::uint64_t slot_bytes,
                                const kv::Mapping& mapping, kv::Plan& plan, Chunk& out);

}  // namespace rdma_kv::transport::staged
