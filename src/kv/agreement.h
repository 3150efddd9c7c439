// What two sides must agree on before a byte moves, and which part of a block each holds.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/geometry.h"

namespace rdma_kv::kv {

// The part of one tensor's block that this prefill rank writes into that decode rank's block.
// A block is head-major, [kv_heads, ...], so that the heads of a rank are one run of bytes.
struct Slice {
  std::uint64_t src_offset;  // in the prefill block
  std::uint64_t dst_offset;  // in the decode block
  std::uint64_t bytes;
  bool operator==(const Slice&) const = default;
};

// One slice per tensor. Both sides compute it from both geometries and must get the same answer.
//
// All heads of a tensor in a row are `block_bytes * tp_size` bytes; rank r of either side holds the
// r-th part of them, and the slice is where the two parts overlap. Without values, keys (and their
// scales) of equal size are taken as replicated on every rank (MLA) and copied whole.
//
// Throws Error(kLayoutMismatch) naming both values when layers, tensors, dtype or bytes differ in a
// way that would corrupt, or when the two ranks share no head.
std::vector<Slice> agree(const Geometry& prefill, const Geometry& decode);

}  // namespace rdma_kv::kv
