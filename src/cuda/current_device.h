// Calls of the driver that need a context: the device's primary one, which torch uses as well.
#pragma once

#include "cuda/driver.h"

namespace rdma_kv::cuda {

// Makes it current on this thread for as long as this lives, and what was current before again.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device);  // by ordinal; throws Error(kUnavailable)
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice();

 private:
  DeviceNumber number_ = 0;
};

}  // namespace rdma_kv::cuda
