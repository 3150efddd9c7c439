// Plain allocations of devices and of page-locked host memory, and questions about addresses.
#include <sys/mman.h>

#include "fake_cuda/memory.h"

namespace fake {
namespace {

constexpr std::size_t kDeviceBytes = std::size_t{16} << 30;

std::size_t used_bytes(DeviceNumber device) {
  std::size_t used = 0;
  for (const auto& [address, range] : ranges()) {
    if (range.file != nullptr && range.kind != Kind::kImported && range.device == device) {
      used += range.file->bytes();
    }
  }
  return used;
}

template <class Value>
Status give(void* out, Value value) {
  *static_cast<Value*>(out) = value;
  return kSuccess;
}

Status attribute_of(void* out, int attribute, DevicePointer first, const Range& range) {
  constexpr unsigned kMemoryTypeHost = 1;
  const bool is_host = range.kind == Kind::kHost;
  const bool is_plain = range.kind == Kind::kDevice;
  switch (attribute) {
    case kPointerMemoryType:
      return give(out, is_host ? kMemoryTypeHost : kMemoryTypeDevice);
    case kPointerDeviceOrdinal:
      return give(out, range.device);
    case kPointerIsLegacyIpcCapable:
      return give(out, is_plain ? 1 : 0);
    case kPointerAllowedHandleTypes:
      return give(out, range.is_exportable ? kHandlePosixFd : 0);
    case 11:  // RANGE_START_ADDR
    case kPointerMappingBase:
      return give(out, first);
    case 12:  // RANGE_SIZE
    case kPointerMappingBytes:
      return give(out, range.bytes);
    default:
      return kCuInvalidValue;
  }
}

}  // namespace
}  // namespace fake

using namespace fake;

EXPORTED Status cuMemAlloc_v2(DevicePointer* out, std::size_t bytes) {
  ENTER("cuMemAlloc_v2");
  const std::lock_guard lock(world());
  if (out == nullptr || bytes == 0) return kCuInvalidValue;
  const RawContext context = current_context();
  if (!is_alive(context)) return kCuInvalidContext;
  const std::size_t mapped = round_up(bytes, kPage);
  if (mapped < bytes || used_bytes(context->device) + mapped > kDeviceBytes) return kCuOutOfMemory;
  const auto file = File::make(context->device, mapped);
  const DevicePointer address = file != nullptr ? take_addresses(mapped) : 0;
  if (address == 0 || !map_file(address, mapped, *file, true)) return kCuOutOfMemory;
  ranges()[address] = {.bytes = bytes, .device = context->device, .context = context, .file = file};
  *out = address;
  return kSuccess;
}

// Waits for what is on its way, as the real one does.
EXPORTED Status cuMemFree_v2(DevicePointer address) {
  ENTER("cuMemFree_v2");
  if (address == 0) return kSuccess;
  RawContext context = nullptr;
  {
    const std::lock_guard lock(world());
    const auto found = ranges().find(address);
    if (found == ranges().end() || found->second.kind != Kind::kDevice) return kCuInvalidValue;
    if (!is_alive(current_context())) return kCuInvalidContext;
    context = found->second.context;
  }
  wait_for_all(context);
  const std::lock_guard lock(world());
  const auto found = ranges().find(address);
  if (found == ranges().end()) return kCuInvalidValue;
  unmap(address, round_up(found->second.bytes, kPage));
  ranges().erase(found);
  return kSuccess;
}

EXPORTED Status cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  ENTER("cuMemGetInfo_v2");
  const std::lock_guard lock(world());
  if (!is_alive(current_context())) return kCuInvalidContext;
  *total = kDeviceBytes;
  *free = kDeviceBytes - used_bytes(current_context()->device);
  return kSuccess;
}

EXPORTED Status cuMemHostAlloc(void** out, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostAlloc");
  const std::lock_guard lock(world());
  if (out == nullptr || bytes == 0 || flags > 7) return kCuInvalidValue;
  const RawContext context = current_context();
  if (!is_alive(context)) return kCuInvalidContext;
  const std::size_t mapped = round_up(bytes, kPage);
  const DevicePointer address = take_addresses(mapped, kPage);
  void* const at = reinterpret_cast<void*>(address);
  if (address == 0 || ::mmap(at, mapped, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at) {
    return kCuOutOfMemory;
  }
  ranges()[address] = {
      .kind = Kind::kHost, .bytes = bytes, .device = context->device, .context = context};
  *out = at;
  return kSuccess;
}

EXPORTED Status cuMemFreeHost(void* memory) {
  ENTER("cuMemFreeHost");
  RawContext context = nullptr;
  const auto address = reinterpret_cast<DevicePointer>(memory);
  {
    const std::lock_guard lock(world());
    const auto found = ranges().find(address);
    if (found == ranges().end() || found->second.kind != Kind::kHost) return kCuInvalidValue;
    context = found->second.context;
  }
  wait_for_all(context);
  const std::lock_guard lock(world());
  const auto found = ranges().find(address);
  if (found == ranges().end()) return kCuInvalidValue;
  unmap(address, round_up(found->second.bytes, kPage));
  ranges().erase(found);
  return kSuccess;
}

EXPORTED Status cuMemHostGetDevicePointer_v2(DevicePointer* out, void* memory, unsigned flags) {
  ENTER("cuMemHostGetDevicePointer_v2");
  const std::lock_guard lock(world());
  const auto address = reinterpret_cast<DevicePointer>(memory);
  const auto found = range_at(address);
  if (out == nullptr || flags != 0) return kCuInvalidValue;
  if (found == ranges().end() || found->second.kind != Kind::kHost) return kCuInvalidValue;
  *out = address;
  return kSuccess;
}

EXPORTED Status cuMemGetAddressRange_v2(DevicePointer* first, std::size_t* bytes,
                                        DevicePointer address) {
  ENTER("cuMemGetAddressRange_v2");
  const std::lock_guard lock(world());
  if (!is_alive(current_context())) return kCuInvalidContext;
  const auto found = range_at(address);
  if (found == ranges().end()) return kCuNotFound;
  if (first != nullptr) *first = found->first;
  if (bytes != nullptr) *bytes = found->second.bytes;
  return kSuccess;
}

EXPORTED Status cuPointerGetAttribute(void* out, int attribute, DevicePointer address) {
  ENTER("cuPointerGetAttribute");
  const std::lock_guard lock(world());
  const auto found = range_at(address);
  if (out == nullptr || found == ranges().end()) return kCuInvalidValue;
  return attribute_of(out, attribute, found->first, found->second);
}
