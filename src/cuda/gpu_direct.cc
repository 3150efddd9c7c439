#include "cuda/gpu_direct.h"

#include "cuda/driver.h"

namespace rdma_kv::cuda {
namespace {

DeviceNumber number_of(int device) {
  DeviceNumber number = 0;
  check(api().device_get(&number, device), "cuDeviceGet");
  return number;
}

std::optional<int> attribute(DeviceNumber number, int which) {
  int value = 0;
  if (api().device_get_attribute(&value, which, number) != kSuccess) return std::nullopt;
  return value;
}

}  // namespace

GpuDirect ask(int device) {
  const DeviceNumber number = number_of(device);
  return {.name = name_of(device),
          .dma_buf = attribute(number, kAttributeDmaBufSupported),
          .peer_memory = attribute(number, kAttributeGpuDirectSupported),
          .ordering = attribute(number, kAttributeGpuDirectWriteOrdering),
          .flush_options = attribute(number, kAttributeGpuDirectFlushOptions)};
}

int device_count() {
  int count = 0;
  check(api().device_get_count(&count), "cuDeviceGetCount");
  return count;
}

std::string name_of(int device) {
  char name[256] = "";
  try {
    check(api().device_get_name(name, sizeof name, number_of(device)), "cuDeviceGetName");
  } catch (const Error&) {
    return join("CUDA device ", device);
  }
  return join("CUDA device ", device, " (", static_cast<const char*>(name), ")");
}

}  // namespace rdma_kv::cuda
