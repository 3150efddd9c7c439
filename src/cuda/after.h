// What a copy on the GPU waits for before it reads its source.
#pragma once

#include <cstdint>

#include "cuda/api.h"

namespace rdma_kv::cuda {

struct After {
  enum class Kind : std::uint8_t {
    kNothing,
    kEvent,   // until this CUevent, as it was last recorded, has come
    kStream,  // until all that this CUstream holds now is done; 0: the default stream
  };
  Kind kind = Kind::kNothing;
  std::uint64_t handle = 0;
};

// On the calling thread. Throws Error(kValue) when the driver refuses the handle.
void wait_on_host(After after);

}  // namespace rdma_kv::cuda
