// How blocks of one tensor are cut for the copy kernel.
#pragma once

#include <bit>
#include <cstdint>

#include "cuda/copy_job.h"

namespace rdma_kv::cuda {

inline constexpr std::uint64_t kWidestAccess = 16;  // bytes: what one thread moves at once

// The widest access that divides every one of the numbers whose bits are in `bits`: addresses,
// strides and sizes, joined by `|`.
inline unsigned widest_access(std::uint64_t bits) noexcept {
  return 1u << std::countr_zero(bits | kWidestAccess);
}

// Fills in what follows from the sizes and strides of `walk`; `bits` has those of the addresses.
inline void cut(CopyWalk& walk, std::uint64_t bits) noexcept {
  bits |= walk.src_stride | walk.dst_stride | walk.src_packed | walk.dst_packed | walk.bytes;
  walk.width = widest_access(bits);
  const std::uint64_t piece_bytes = std::uint64_t{walk.width} * kAccessesPerPiece;
  walk.pieces = static_cast<unsigned>((walk.bytes + piece_bytes - 1) / piece_bytes);
}

}  // namespace rdma_kv::cuda
