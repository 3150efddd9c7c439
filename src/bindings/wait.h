// Waiting for the core from Python: the GIL is released, signals are honoured.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "bindings/gil.h"

namespace rdma_kv::bindings {

// How long Ctrl-C may go unnoticed.
inline constexpr Nanos kSignalSlice = 100 * kMillisecond;

inline Nanos deadline_of(std::optional<double> timeout_s) {
  return timeout_s ? deadline_after(*timeout_s) : kNever;
}

// Calls `wait(until)` in slices until it answers true or `deadline` passes. Returns its last
// answer. Throws KeyboardInterrupt and the like.
template <class Wait>
bool wait_with_signals(Nanos deadline, Wait&& wait) {
  while (true) {
    const Nanos until = std::min(deadline, now() + kSignalSlice);
    bool has_ended = false;
    {
      const GilReleased released;
      has_ended = wait(until);
    }
    if (has_ended) return true;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    if (now() >= deadline) return false;
  }
}

}  // namespace rdma_kv::bindings
