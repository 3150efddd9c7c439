// Where the time of one call goes: moments that a bench asks for, and nobody else pays for.
#pragma once

#include <array>
#include <cstddef>

#include "base/clock.h"

namespace rdma_kv {

enum class Stage : std::size_t {
  kEntered,    // the core was called
  kBegun,      // the driver has taken a copy whose blocks are not known yet
  kPlanned,    // every id is checked, neighbours are joined
  kSubmitted,  // the write is in its peer's queue
  kTabled,     // the table of blocks is written
  kLaunched,   // the driver has taken the copy, or one that had begun was told to go
  kLanded,     // all bytes are there
  kCompleted,  // the transfer says so
  kCount,
};

struct Trace {
  std::array<Nanos, static_cast<std::size_t>(Stage::kCount)> at{};
};

// Of the call that this thread is in; null: nobody wants to know.
inline thread_local Trace* tracing = nullptr;

inline void trace(Stage stage) noexcept {
  if (tracing != nullptr) tracing->at[static_cast<std::size_t>(stage)] = now();
}

}  // namespace rdma_kv
