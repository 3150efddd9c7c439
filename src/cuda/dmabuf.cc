#include "cuda/dmabuf.h"

#include <unistd.h>

#include <cstddef>
#include <string>

#include "cuda/current_device.h"
#include "cuda/driver.h"
#include "cuda/gpu_direct.h"

namespace rdma_kv::cuda {
namespace {

constexpr int kPointerIsManaged = 8;  // CU_POINTER_ATTRIBUTE_IS_MANAGED

[[noreturn]] void refuse(const std::string& why) { throw Error(Errc::kUnavailable, why); }

std::uint64_t page_bytes() noexcept { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

void check_support(int device) {
  if (api().mem_get_handle_for_address_range == nullptr) {
    refuse(
        "the NVIDIA driver has no cuMemGetHandleForAddressRange; one of CUDA 11.7 or newer is "
        "needed");
  }
  const GpuDirect gpu = ask(device);
  if (gpu.dma_buf.value_or(0) != 0) return;
  refuse(join(gpu.name,
              " exports none (CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED is not set); NVIDIA's open "
              "kernel modules and Linux 5.12 or newer are needed"));
}

// Virtual-memory allocations may follow each other in one reserved range of addresses, and the
// driver exports them together where they are alike.
bool is_mapped(DevicePointer address) {
  AllocationHandle handle = 0;
  void* const pointer = reinterpret_cast<void*>(address);
  if (api().mem_retain_allocation_handle(&handle, pointer) != kSuccess) return false;
  note(api().mem_release(handle), "cuMemRelease");
  return true;
}

void check_allocation(DevicePointer address, std::uint64_t bytes) {
  DevicePointer start = 0;
  std::size_t size = 0;
  check(api().mem_get_address_range(&start, &size, address), "cuMemGetAddressRange");
  const std::uint64_t left = size - (address - start);
  if (bytes <= left || is_mapped(address)) return;
  refuse(join("the ", bytes, " bytes at 0x", Hex{address},
              " span several allocations: the first ends after ", left,
              "; allocate each tensor in one piece"));
}

UniqueFd export_pages(DevicePointer start, std::uint64_t bytes) {
  int fd = -1;
  const Status status =
      api().mem_get_handle_for_address_range(&fd, start, bytes, kRangeHandleDmaBufFd, 0);
  if (status == kSuccess) return UniqueFd(fd);
  refuse(join("cuMemGetHandleForAddressRange: ", reason_of(status), ", ", bytes, " bytes at 0x",
              Hex{start}));
}

}  // namespace

DmaBuf::DmaBuf(DevicePointer address, std::uint64_t bytes, int device)
    : offset_(address % page_bytes()),
      bytes_((offset_ + bytes + page_bytes() - 1) / page_bytes() * page_bytes()) {
  check_support(device);
  const CurrentDevice current(device);
  check_allocation(address, bytes);
  fd_ = export_pages(address - offset_, bytes_);
}

bool is_managed(DevicePointer address) {
  int managed = 0;
  // The driver's answer is a bool or an unsigned, as its version has it: both fit.
  const Status status = api().pointer_get_attribute(&managed, kPointerIsManaged, address);
  return status == kSuccess && managed != 0;
}

}  // namespace rdma_kv::cuda
