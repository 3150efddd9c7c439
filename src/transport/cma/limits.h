// The numbers of the cma transport, each with its reason.
#pragma once

#include <climits>
#include <cstddef>

namespace rdma_kv::transport::cma {

// iovecs of each side in one system call: all that the kernel takes.
inline constexpr std::size_t kIovecs = IOV_MAX;

// Bytes in one call: a call cannot be interrupted, and the peer's death is looked for between two.
inline constexpr std::size_t kCallBytes = std::size_t{1} << 20;

// Bytes in one post(): about a millisecond of copying, then others get their turn.
inline constexpr std::size_t kTurnBytes = std::size_t{4} << 20;

}  // namespace rdma_kv::transport::cma
