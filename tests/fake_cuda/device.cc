// What the driver tells of itself and of its devices.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "fake_cuda/call.h"
#include "fake_cuda/context.h"

namespace fake {
namespace {

struct Words {
  Status status;
  const char* name;
  const char* text;
};

constexpr Words kWords[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kCuInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kCuOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kCuNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kCuNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kCuInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kCuInvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {kCuInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kCuMapFailed, "CUDA_ERROR_MAP_FAILED", "mapping of buffer object failed"},
    {217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
     "peer access is not supported between these two devices"},
    {kCuInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kCuNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {kCuOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {kPeerAccessAlready, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
     "peer access is already enabled"},
    {705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"},
    {kCuContextIsDestroyed, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kCuNotPermitted, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {kCuNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const Words* words_of(Status status) {
  const auto* const found = std::find_if(std::begin(kWords), std::end(kWords),
                                         [&](const Words& it) { return it.status == status; });
  return found != std::end(kWords) ? found : nullptr;
}

bool is_device(DeviceNumber device) { return device >= 0 && device < device_count(); }

int attribute_of(int which) {
  switch (which) {
    case kAttributeMultiprocessors:
      return 4;
    case kAttributeUnifiedAddressing:
      return 1;
    case kAttributeMajor:
      return 9;
    case kAttributeMinor:
      return 0;
    case kAttributeGpuDirectSupported:
      return 1;
    case kAttributeGpuDirectFlushOptions:
      return kFlushByHost;
    case kAttributeGpuDirectWriteOrdering:
      return kOrderingOwner;
    case kAttributeDmaBufSupported:
      return number_from_environment("RDMA_KV_FAKE_DMABUF", 0);
    case 102:
      return 1;  // VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
    case 103:
      return 1;  // HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED
    default:
      return 0;
  }
}

}  // namespace

int device_count() {
  static const int count = std::clamp(number_from_environment("RDMA_KV_FAKE_GPUS", 2), 0, 16);
  return count;
}

}  // namespace fake

using namespace fake;

EXPORTED Status cuInit(unsigned flags) {
  if (flags != 0) return kCuInvalidValue;
  if (device_count() == 0) return kCuNoDevice;
  set_initialized();
  return enter("cuInit");
}

EXPORTED Status cuDriverGetVersion(int* out) {
  if (out == nullptr) return kCuInvalidValue;
  *out = 13000;
  return kSuccess;
}

EXPORTED Status cuGetErrorName(Status status, const char** out) {
  const Words* const words = words_of(status);
  *out = words != nullptr ? words->name : nullptr;
  return words != nullptr ? kSuccess : kCuInvalidValue;
}

EXPORTED Status cuGetErrorString(Status status, const char** out) {
  const Words* const words = words_of(status);
  *out = words != nullptr ? words->text : nullptr;
  return words != nullptr ? kSuccess : kCuInvalidValue;
}

EXPORTED Status cuDeviceGetCount(int* out) {
  ENTER("cuDeviceGetCount");
  *out = device_count();
  return kSuccess;
}

EXPORTED Status cuDeviceGet(DeviceNumber* out, int ordinal) {
  ENTER("cuDeviceGet");
  if (!is_device(ordinal)) return kCuInvalidDevice;
  *out = ordinal;
  return kSuccess;
}

EXPORTED Status cuDeviceGetName(char* out, int size, DeviceNumber device) {
  ENTER("cuDeviceGetName");
  if (!is_device(device)) return kCuInvalidDevice;
  std::snprintf(out, static_cast<std::size_t>(size), "FAKE GPU in host memory");
  return kSuccess;
}

EXPORTED Status cuDeviceGetAttribute(int* out, int attribute, DeviceNumber device) {
  ENTER("cuDeviceGetAttribute");
  if (!is_device(device)) return kCuInvalidDevice;
  *out = attribute_of(attribute);
  return kSuccess;
}

EXPORTED Status cuDeviceGetUuid_v2(Uuid* out, DeviceNumber device) {
  ENTER("cuDeviceGetUuid_v2");
  if (!is_device(device)) return kCuInvalidDevice;
  std::memcpy(out->bytes, "FAKE-GPU-NUMBER", 16);
  out->bytes[15] = static_cast<char>(device);
  return kSuccess;
}

EXPORTED Status cuDeviceGetPCIBusId(char* out, int size, DeviceNumber device) {
  ENTER("cuDeviceGetPCIBusId");
  if (!is_device(device)) return kCuInvalidDevice;
  std::snprintf(out, static_cast<std::size_t>(size), "FAFA:%02X:00.0", device);
  return kSuccess;
}

// RDMA_KV_FAKE_PEERS=0: as between GPUs that have no way to each other.
EXPORTED Status cuDeviceCanAccessPeer(int* out, DeviceNumber device, DeviceNumber peer) {
  ENTER("cuDeviceCanAccessPeer");
  if (!is_device(device) || !is_device(peer)) return kCuInvalidDevice;
  *out = device != peer && number_from_environment("RDMA_KV_FAKE_PEERS", 1) != 0;
  return kSuccess;
}

EXPORTED Status cuFlushGPUDirectRDMAWrites(int target, int scope) {
  ENTER("cuFlushGPUDirectRDMAWrites");
  if (target != kFlushTargetCurrentContext) return kCuInvalidValue;
  if (scope != kFlushToOwner && scope != kFlushToAllDevices) return kCuInvalidValue;
  const std::lock_guard lock(world());
  return is_alive(current_context()) ? kSuccess : kCuInvalidContext;
}
