// The numbers of the tcp transport, each with its reason.
#pragma once

#include <climits>
#include <cstddef>

#include "transport/stream/frames.h"

namespace rdma_kv::transport::tcp {

// iovecs in one system call: all that the kernel takes.
inline constexpr std::size_t kIovecs = IOV_MAX;

// Payload of one DATA frame, but for a part's last. Its header costs nothing at this size, and an
// abandoned write stops after at most this much.
inline constexpr std::size_t kFrameBytes = stream::kMostDataBytes;

// Payload gathered for one sendmsg. The kernel takes no more than the socket's buffer anyway, and
// what it left is gathered already.
inline constexpr std::size_t kBatchBytes = std::size_t{1} << 20;

// Payload moved for one peer before others get their turn: about a millisecond of copying.
inline constexpr std::size_t kSendTurnBytes = std::size_t{4} << 20;
inline constexpr std::size_t kReceiveTurnBytes = std::size_t{4} << 20;

// Reads of a stream that is being closed before others get their turn: more than all answers that a
// peer can owe.
inline constexpr int kScrapsPerTurn = 64;

// A write is split over as many streams as leave each at least this much: below it the further
// system calls cost more than they win.
inline constexpr std::size_t kLeastPartBytes = std::size_t{256} << 10;

// Writes on their way at once; the receiver bounds the half-arrived among them.
inline constexpr std::size_t kMostInFlight = stream::kMostHalfArrived;

}  // namespace rdma_kv::transport::tcp
