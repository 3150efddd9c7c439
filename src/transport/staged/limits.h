// The numbers of staged links, each with its reason.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rdma_kv::transport::staged {

// Bytes of one slot, unless one block of one layer needs more: at the 5 GB/s of a fast loopback a
// chunk is 200 us on the wire, beside which starting its two copies (10 us each) costs little.
inline constexpr std::uint64_t kUsualSlotBytes = std::uint64_t{1} << 20;

// Slots of a link: one gathers, some are on the wire or wait for their answer, one scatters; more
// than this many chunks of a MiB are under way on no path that is not GPUDirect's.
inline constexpr std::uint32_t kUsualSlots = 8;
// With larger blocks: one gathers, one is on the wire, one scatters.
inline constexpr std::uint32_t kLeastSlots = 3;
// Page-locked bytes of a link at each end beyond which it has fewer slots.
inline constexpr std::uint64_t kUsualRingBytes = std::uint64_t{32} << 20;

// What a peer may ask this side to page-lock, and what is worth it: one block of one layer has at
// most so many bytes.
inline constexpr std::uint64_t kMostSlotBytes = std::uint64_t{256} << 20;
inline constexpr std::uint32_t kMostSlots = 64;

// The ring is written in pieces of this size: a chunk ends with up to so many bytes that nobody
// looks at, and a chunk's plan has one block id for each.
inline constexpr std::uint64_t kGranuleBytes = 4096;

// Writes above this size are cut into at least kLeastChunks chunks, so that one is gathered while
// another one travels; below, each chunk's own cost is more than that wins.
inline constexpr std::uint64_t kWholeBytes = std::uint64_t{512} << 10;
inline constexpr std::uint64_t kLeastChunks = 4;
inline constexpr std::uint64_t kLeastChunkBytes = std::uint64_t{256} << 10;

// Bytes that the CPU copies for one link before others get their turn: about 100 us.
inline constexpr std::uint64_t kTurnBytes = std::uint64_t{1} << 20;

// Writes on their way at once.
inline constexpr std::size_t kMostFlights = 256;

}  // namespace rdma_kv::transport::staged
