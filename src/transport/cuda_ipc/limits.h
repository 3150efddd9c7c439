// The numbers of the cuda_ipc transport, each with its reason.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace rdma_kv::transport::cuda_ipc {

// Extents from this size on go to the copy engines: they reach the link's speed without taking
// multiprocessors from a model, and the kernel does not. Measured by bench/gpu.py.
inline constexpr std::uint64_t kBulkBytes = std::uint64_t{8} << 20;

// Bulk copies of one write: each is a call to the driver, under the peer's lock.
inline constexpr std::uint64_t kMostBulkCopies = 256;

// Fewer blocks are checked before a launch could have begun.
inline constexpr std::uint64_t kLeastEarlyBlocks = 128;

// How long a waiting caller looks on, rather than sleeping, for a copy that is under way: a sleep
// and a wake-up through the driver cost about as much as copying 16 MiB.
inline constexpr Nanos kMostPatience = 2 * kMillisecond;

// Slower than any NVLink: what a copy is expected to take, in bytes per nanosecond.
inline constexpr std::uint64_t kLeastBytesPerNano = 100;

}  // namespace rdma_kv::transport::cuda_ipc
