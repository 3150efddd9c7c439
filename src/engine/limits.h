// The engine's numbers, each with its reason.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace rdma_kv::engine {

// A waiting thread drives the link itself for this long without progress before it sleeps. About
// what a sleep and a wake-up cost on a busy machine, so that spinning at most doubles the wait.
inline constexpr Nanos kSpin = 50 * kMicrosecond;

// Who drives a long write takes the peer's lock again and again, faster than a sleeping caller can
// wake up to get it. Between two turns it waits this long for callers (to submit, cancel, look).
inline constexpr Nanos kGiveWay = 200 * kMicrosecond;

// Payload of the writes that are posted in a row, under the peer's lock, before callers and other
// peers get their turn: about a millisecond for a link that copies in post().
inline constexpr std::uint64_t kPostTurnBytes = std::uint64_t{4} << 20;

// How long an abandoned write may take to stop alone before its link is broken for it.
inline constexpr Nanos kStopGrace = 500 * kMillisecond;

// How long a broken link may take until nothing of it can land. After that the error says
// NotQuiesced instead of pretending.
inline constexpr Nanos kQuiesceGrace = 3 * kSecond;

// How often deadlines and idle links are looked at: finds a dead peer on an idle link, and costs
// five wake-ups a second.
inline constexpr Nanos kTick = 200 * kMillisecond;

// A quiescing link is asked again at least this often.
inline constexpr Nanos kQuiescePoll = 10 * kMillisecond;

// Notices of one process that wait to be taken before nothing more is read of it: far more than
// requests are under way, and a few MiB. By process and not by peer, because a process makes as
// many peers as it likes.
inline constexpr std::size_t kMostWaitingOfProcess = std::size_t{1} << 15;
// The same of one host's processes together: a peer says itself what its process number is.
inline constexpr std::size_t kMostWaitingOfHost = std::size_t{1} << 17;

// Names of peers kept although no notice of theirs waits.
inline constexpr std::size_t kMostSpareOrigins = 64;

// Plans kept for reuse: as many as transfers usually are under way at once.
inline constexpr int kMostSparePlans = 64;

}  // namespace rdma_kv::engine
