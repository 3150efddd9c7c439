// The numbers of this transport, each with its reason.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace rdma_kv::transport::rdma {

// Work requests of one doorbell, of which only the last is signalled: the doorbell (about 0.3 us)
// and the completion are shared by this many, yet the queue comes free piece by piece.
inline constexpr std::uint32_t kChain = 64;
// Slots of a send queue: 512 writes of 4 KiB are 2 MiB, which covers the round trip of a 400 Gb/s
// link (50 GB/s x 10 us = 0.5 MB) with room for a completion that is collected late.
inline constexpr std::uint32_t kSendDepth = 512;
static_assert(kChain * 4 <= kSendDepth, "free the send queue in quarters or finer");
// Fewer slots than this cannot hold a write, its read-back and its notice beside others.
inline constexpr std::uint32_t kLeastChain = 8;

// Scattered sources of one work request. More would double the size of every slot of the queue
// (16 sources are about 300 bytes) for runs that are rarely that long.
inline constexpr std::uint32_t kMostSources = 16;
// Sources of one chain: four a work request on average; a chain that has used them up is closed.
inline constexpr std::uint32_t kChainSources = 4 * kChain;

// Chains that one post() makes before others get their turn: some 10 us of work.
inline constexpr int kChainsPerPost = 8;

inline constexpr std::uint32_t kMostQueuePairs = 16;

// Receives of one queue pair. Each notice takes one until the reactor has posted it again; a sender
// that is faster waits in its own NIC and nobody else does.
inline constexpr std::uint32_t kReceiveDepth = 256;
// Notices of one link that are taken in a row before other links get their turn.
inline constexpr int kNoticesPerTurn = 512;
// Tags of one link that some, but not all, of its queue pairs have announced. A peer posts a notice
// on all queue pairs at once, so that at most a send queue's worth can be on the way.
inline constexpr std::size_t kMostPendingTags = kMostQueuePairs * kSendDepth;

// Bytes that a flush reads back: one PCIe transaction of the smallest kind.
inline constexpr std::uint32_t kFlushBytes = 8;

// How long stopped queue pairs may take to complete what they hold. NICs need microseconds; a
// driver that does not do it at all has them destroyed then, which ends their sending as well.
inline constexpr Nanos kEndWait = kSecond;
// How long the receiving end looks for notices that came before its queue pairs stopped. NICs
// complete them within microseconds.
inline constexpr Nanos kLastNoticesWait = 2 * kMillisecond;

// Completions fetched by one call; on the stack.
inline constexpr int kPollBatch = 32;
// Channel events are acknowledged in batches: it takes a lock.
inline constexpr unsigned kAckBatch = 64;
// Busy polls between two looks at the side stream, which is a system call. Who sleeps on the
// link's descriptor is woken by it at once.
inline constexpr unsigned kPollsPerLook = 1024;

}  // namespace rdma_kv::transport::rdma
