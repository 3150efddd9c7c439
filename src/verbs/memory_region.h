// Memory that a NIC may touch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kv/layout.h"
#include "verbs/device.h"

namespace rdma_kv::verbs {

struct MemoryAccess {
  bool remote_write = false;
  bool remote_read = false;
  bool relaxed_ordering = false;  // on PCIe; left out where the library is too old to know it
};

// Where a region of device memory begins in a dma-buf. The descriptor is borrowed for registering:
// the kernel holds the buffer from then on.
struct DmaBufPlace {
  int fd;
  std::uint64_t offset;  // as far into a page as the region's address is
};

// One tensor registered with one NIC. The bytes are borrowed and must outlive this object.
// Registering pins pages and is slow: once per region and rail, whatever the number of peers.
// The NIC sees one memory region, or several of 2^chunk_shift bytes where it takes no larger one.
class MemoryRegion {
 public:
  // By its address: host memory, or device memory that a kernel module lets the NIC pin. Throws
  // Error(kRegistration) with the remedy.
  MemoryRegion(const std::shared_ptr<const Device>& device, const kv::Region& region,
               unsigned chunk_shift, MemoryAccess access);
  // Through a dma-buf, under the same addresses.
  MemoryRegion(const std::shared_ptr<const Device>& device, const kv::Region& region,
               unsigned chunk_shift, MemoryAccess access, const DmaBufPlace& place);

  // One per chunk, in the order of addresses.
  std::vector<std::uint32_t> lkeys() const;
  std::vector<std::uint32_t> rkeys() const;
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::shared_ptr<const Device> device_;  // declared first: its protection domain outlives chunks_
  std::vector<UniqueMr> chunks_;
  std::uint64_t bytes_;
};

}  // namespace rdma_kv::verbs
