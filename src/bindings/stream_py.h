// What the bindings of the transports share.
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "kv/layout.h"

namespace rdma_kv::bindings {

// A peer that got its ticket opens its streams within this time: its handshake's own deadline is
// shorter, and a link that nobody opens holds memory.
inline constexpr Nanos kOpenWithin = 60 * kSecond;

// For transports that the CPU drives.
inline void need_host_memory(const kv::Layout& layout, const char* transport) {
  if (!layout.has_device_memory()) return;
  throw Error(Errc::kUnavailable,
              join(transport, ": this side's KV cache is in GPU memory, which it cannot reach"));
}

}  // namespace rdma_kv::bindings
