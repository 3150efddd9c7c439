// Time is nanoseconds of CLOCK_MONOTONIC, always. Never read once per block.
#pragma once

#include <chrono>
#include <cstdint>

namespace rdma_kv {

using Nanos = std::int64_t;

inline constexpr Nanos kMicrosecond = 1000;
inline constexpr Nanos kMillisecond = 1000 * kMicrosecond;
inline constexpr Nanos kSecond = 1000 * kMillisecond;
inline constexpr Nanos kNever = INT64_MAX;

inline Nanos now() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The moment `seconds` from now; saturates, so that 1e9 seconds means "never" and not the past.
inline Nanos deadline_after(double seconds) noexcept {
  constexpr double kLongest = 1e9;
  if (seconds <= 0) return now();  // over already; hugely negative ones would not fit
  if (!(seconds < kLongest)) return kNever;
  return now() + static_cast<Nanos>(seconds * 1e9);
}

}  // namespace rdma_kv
