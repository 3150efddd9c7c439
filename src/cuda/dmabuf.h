// Device memory as a dma-buf: the form in which Linux hands it to another device, such as a NIC.
#pragma once

#include <cstdint>

#include "base/fd.h"
#include "cuda/api.h"

namespace rdma_kv::cuda {

// Whole pages of the host that hold a range of device memory. The descriptor keeps them alive, and
// so does whoever has mapped it: it may be closed once a NIC has registered the range.
class DmaBuf {
 public:
  // Throws Error(kUnavailable) saying why the range cannot be had as one dma-buf: device, driver,
  // or a range of several allocations.
  DmaBuf(DevicePointer address, std::uint64_t bytes, int device);

  int fd() const noexcept { return fd_.get(); }
  std::uint64_t offset() const noexcept { return offset_; }  // of the range
  std::uint64_t bytes() const noexcept { return bytes_; }    // of all pages

 private:
  std::uint64_t offset_;
  std::uint64_t bytes_;
  UniqueFd fd_;
};

// Managed memory moves between host and device: what a NIC pins of it need not be what a kernel
// reads.
bool is_managed(DevicePointer address);

}  // namespace rdma_kv::cuda
