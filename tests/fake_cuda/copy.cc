// Copies and fills that the driver does by itself.
#include <cstring>
#include <memory>

#include "fake_cuda/memory.h"
#include "fake_cuda/stream.h"

namespace fake {
namespace {

void* pointer(DevicePointer address) { return reinterpret_cast<void*>(address); }
DevicePointer address(const void* memory) { return reinterpret_cast<DevicePointer>(memory); }

// With world() held: all in one run of ranges that the driver knows.
bool is_known(DevicePointer first, std::size_t bytes) {
  for (DevicePointer at = first; at < first + bytes;) {
    const auto range = range_at(at);
    if (range == ranges().end()) return false;
    at = range->first + range->second.bytes;
  }
  return true;
}

}  // namespace
}  // namespace fake

using namespace fake;

EXPORTED Status cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, std::size_t bytes,
                                     RawStream stream) {
  ENTER("cuMemcpyDtoDAsync_v2");
  const std::lock_guard lock(world());
  if (!is_known(to, bytes) || !is_known(from, bytes)) return kCuInvalidValue;
  return submit_here(stream, [=] { std::memmove(pointer(to), pointer(from), bytes); });
}

// Bytes that are not page-locked are taken before it returns.
EXPORTED Status cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, std::size_t bytes,
                                     RawStream stream) {
  ENTER("cuMemcpyHtoDAsync_v2");
  const std::lock_guard lock(world());
  if (!is_known(to, bytes)) return kCuInvalidValue;
  if (is_known(address(from), bytes)) {
    return submit_here(stream, [=] { std::memcpy(pointer(to), from, bytes); });
  }
  const std::shared_ptr<char[]> taken(new char[bytes]);
  std::memcpy(taken.get(), from, bytes);
  return submit_here(stream, [=] { std::memcpy(pointer(to), taken.get(), bytes); });
}

// Into memory that is not page-locked it is no asynchronous copy.
EXPORTED Status cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, std::size_t bytes,
                                     RawStream stream) {
  ENTER("cuMemcpyDtoHAsync_v2");
  Stream used;
  CUstream_st::Ticket ticket = 0;
  {
    const std::lock_guard lock(world());
    if (!is_known(from, bytes)) return kCuInvalidValue;
    const auto copy = [=] { std::memcpy(to, pointer(from), bytes); };
    if (const Status status = submit_here(stream, copy, &used)) return status;
    if (is_known(address(to), bytes)) return kSuccess;
    ticket = used->last();
  }
  used->wait(ticket);
  return kSuccess;
}

EXPORTED Status cuMemcpyHtoD_v2(DevicePointer to, const void* from, std::size_t bytes) {
  ENTER("cuMemcpyHtoD_v2");
  if (const Status status = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr)) return status;
  return cuStreamSynchronize(nullptr);
}

EXPORTED Status cuMemcpyDtoH_v2(void* to, DevicePointer from, std::size_t bytes) {
  ENTER("cuMemcpyDtoH_v2");
  if (const Status status = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr)) return status;
  return cuStreamSynchronize(nullptr);
}

EXPORTED Status cuMemsetD8Async(DevicePointer to, unsigned char value, std::size_t bytes,
                                RawStream stream) {
  ENTER("cuMemsetD8Async");
  const std::lock_guard lock(world());
  if (!is_known(to, bytes)) return kCuInvalidValue;
  return submit_here(stream, [=] { std::memset(pointer(to), value, bytes); });
}

EXPORTED Status cuStreamWriteValue32_v2(RawStream stream, DevicePointer to, std::uint32_t value,
                                        unsigned flags) {
  ENTER("cuStreamWriteValue32_v2");
  const std::lock_guard lock(world());
  if (flags != 0 || to % sizeof value != 0 || !is_known(to, sizeof value)) return kCuInvalidValue;
  return submit_here(stream, [=] {
    __atomic_store_n(static_cast<std::uint32_t*>(pointer(to)), value, __ATOMIC_RELEASE);
  });
}
