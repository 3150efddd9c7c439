// Registers the regions of a layout, on the host or on GPUs, with one NIC.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kv/layout.h"
#include "verbs/memory_region.h"

namespace rdma_kv::transport::rdma {

struct Registration {
  std::vector<verbs::MemoryRegion> regions;  // in the order of the layout
  // How the NIC reaches those on a GPU, and why by no better way; empty: there are none.
  std::string gpu_memory;
};

// GPU memory goes through a dma-buf where the GPU, its driver, the kernel, libibverbs and the NIC
// all can, else through nvidia-peermem: all regions by one way, so that what is said of it is true
// of each. Throws Error(kRegistration), for GPU memory with the reasons against both.
Registration register_regions(const std::shared_ptr<const verbs::Device>& device,
                              const kv::Layout& layout, unsigned chunk_shift,
                              verbs::MemoryAccess access);

}  // namespace rdma_kv::transport::rdma
