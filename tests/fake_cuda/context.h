// Primary contexts, and which one is current on a thread.
#pragma once

#include <set>

#include "fake_cuda/call.h"

namespace rdma_kv::cuda {

struct CUctx_st {
  DeviceNumber device = 0;
  int holders = 0;
  std::set<RawContext> peers;  // whose memory kernels of this one may touch
};

}  // namespace rdma_kv::cuda

namespace fake {

int device_count();

// All with world() held.
RawContext current_context();       // of this thread; null: none
bool is_alive(RawContext context);  // known, and somebody holds it
RawContext context_of(DeviceNumber device);

// Waits for all streams of a context; without world().
void wait_for_all(RawContext context);

}  // namespace fake
