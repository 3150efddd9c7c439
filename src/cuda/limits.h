// The numbers of copies on a GPU, each with its reason.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace rdma_kv::cuda {

// Of the copy kernel; its launch bounds are the same. Few and large blocks: the last of them tells
// the host, and with 64 registers a thread one fills a multiprocessor.
inline constexpr unsigned kThreadsPerBlock = 1024;

// Thread blocks per multiprocessor at most.
inline constexpr unsigned kBlocksPerMultiprocessor = 1;

// Pieces that one launch can count: 4 TiB with accesses of 16 bytes, 256 GiB with those of one.
inline constexpr std::uint64_t kMostPieces = std::uint64_t{1} << 31;

// Pairs of blocks for which a slot has room from the start; a larger write makes it grow.
inline constexpr std::size_t kUsualPairs = 4096;

// Copies on their way at once on one queue. A model's layers come one after the other, so this many
// cover several requests; each costs a page-locked buffer.
inline constexpr std::size_t kMostSlots = 512;

// Streams for copies that wait for an event. More would let fewer wait behind each other's events,
// but streams share a handful of hardware queues with those of the model.
inline constexpr std::size_t kWaitingStreams = 4;

// How often a stream is asked whether it has failed, while a copy does not end.
inline constexpr Nanos kAskForFailure = 100 * kMicrosecond;

}  // namespace rdma_kv::cuda
