// The numbers of the cuda_ipc transport, each with its reason.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace rdma_kv::transport::cuda_ipc {

// Which writes go to the copy engines: those of one extent, and those whose extents are this long
// on average. A copy engine reaches more of the link than the kernel (395 GB/s against 367 between
// two H200) and takes no multiprocessor from a model, but costs 2.5 us for each extent.
inline constexpr std::uint64_t kBulkBytes = std::uint64_t{12} << 20;
inline constexpr std::uint64_t kLeastBulkBytes = std::uint64_t{64} << 10;

// How long a waiting caller looks on, rather than sleeping, for a copy that is under way: a sleep
// and a wake-up through the driver cost about as much as copying 16 MiB.
inline constexpr Nanos kMostPatience = 2 * kMillisecond;

// Slower than any NVLink: what a copy is expected to take, in bytes per nanosecond.
inline constexpr std::uint64_t kLeastBytesPerNano = 100;

}  // namespace rdma_kv::transport::cuda_ipc
