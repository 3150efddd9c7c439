// Compiles where src/cuda/api.h says what <cuda.h> says; see test_cuda_api.py.
#include <cuda.h>

#include <type_traits>

#include "cuda/api.h"

namespace own = rdma_kv::cuda;

namespace {

// Pointers are all alike to a caller; other arguments agree when they are of one size and kind.
template <class Ours, class Theirs>
constexpr bool is_same_argument() {
  if constexpr (std::is_pointer_v<Ours> || std::is_pointer_v<Theirs>) {
    return std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>;
  } else {
    return sizeof(Ours) == sizeof(Theirs) && std::is_class_v<Ours> == std::is_class_v<Theirs>;
  }
}

template <class Ours, class Theirs>
struct Same;
template <class R1, class... Ours, class R2, class... Theirs>
struct Same<R1 (*)(Ours...), R2 (*)(Theirs...)> {
  static constexpr bool value() {
    if constexpr (sizeof...(Ours) != sizeof...(Theirs)) {
      return false;
    } else {
      return sizeof(R1) == sizeof(R2) && (is_same_argument<Ours, Theirs>() && ...);
    }
  }
};

}  // namespace

#define FUNCTION(field, function) \
  static_assert(Same<decltype(own::Api::field), decltype(&function)>::value(), #function)
#define CONSTANT(name, theirs) \
  static_assert(static_cast<long long>(own::name) == static_cast<long long>(theirs), #theirs)

#include "functions.inc"  // from src/cuda/driver.cc

CONSTANT(kSuccess, CUDA_SUCCESS);
CONSTANT(kInvalidValue, CUDA_ERROR_INVALID_VALUE);
CONSTANT(kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
CONSTANT(kNotReady, CUDA_ERROR_NOT_READY);
CONSTANT(kPeerAccessAlready, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
CONSTANT(kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
CONSTANT(kEventDisableTiming, CU_EVENT_DISABLE_TIMING);
CONSTANT(kIpcLazyPeerAccess, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
CONSTANT(kHostPortable, CU_MEMHOSTALLOC_PORTABLE);
CONSTANT(kHostMapped, CU_MEMHOSTALLOC_DEVICEMAP);
CONSTANT(kAttributeMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
CONSTANT(kAttributeUnifiedAddressing, CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING);
CONSTANT(kAttributeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
CONSTANT(kAttributeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
CONSTANT(kAttributeGpuDirectSupported, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED);
CONSTANT(kAttributeGpuDirectFlushOptions, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS);
CONSTANT(kAttributeGpuDirectWriteOrdering, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING);
CONSTANT(kAttributeDmaBufSupported, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
CONSTANT(kFlushByHost, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
CONSTANT(kOrderingNone, CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE);
CONSTANT(kOrderingOwner, CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER);
CONSTANT(kOrderingAllDevices, CU_GPU_DIRECT_RDMA_WRITES_ORDERING_ALL_DEVICES);
CONSTANT(kFlushTargetCurrentContext, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX);
CONSTANT(kFlushToOwner, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
CONSTANT(kFlushToAllDevices, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES);
CONSTANT(kPointerMemoryType, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
CONSTANT(kPointerDeviceOrdinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
CONSTANT(kPointerIsLegacyIpcCapable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE);
CONSTANT(kPointerAllowedHandleTypes, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES);
CONSTANT(kPointerMappingBytes, CU_POINTER_ATTRIBUTE_MAPPING_SIZE);
CONSTANT(kPointerMappingBase, CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR);
CONSTANT(kMemoryTypeDevice, CU_MEMORYTYPE_DEVICE);
CONSTANT(kHandlePosixFd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
CONSTANT(kRangeHandleDmaBufFd, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD);
CONSTANT(kLocationDevice, CU_MEM_LOCATION_TYPE_DEVICE);
CONSTANT(kAccessReadWrite, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);

static_assert(sizeof(own::AccessDescription) == sizeof(CUmemAccessDesc));
static_assert(sizeof(own::IpcHandle) == sizeof(CUipcMemHandle));
static_assert(sizeof(own::Uuid) == sizeof(CUuuid));
