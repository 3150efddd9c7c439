// The part of the CUDA driver's interface that we call, declared here: a build needs no toolkit.
// Names and numbers are those of <cuda.h>; the interface of the driver is stable, and a test
// compares this file with the header where there is one (tests/pure/test_cuda_api.py).
#pragma once

#include <cstddef>
#include <cstdint>

namespace rdma_kv::cuda {

using Status = int;                           // CUresult
using DeviceNumber = int;                     // CUdevice
using DevicePointer = std::uint64_t;          // CUdeviceptr
using AllocationHandle = unsigned long long;  // CUmemGenericAllocationHandle

using RawContext = struct CUctx_st*;
using RawStream = struct CUstream_st*;
using RawEvent = struct CUevent_st*;
using RawModule = struct CUmod_st*;
using RawFunction = struct CUfunc_st*;

inline constexpr Status kSuccess = 0;
inline constexpr Status kInvalidValue = 1;         // CUDA_ERROR_INVALID_VALUE
inline constexpr Status kOutOfMemory = 2;          // CUDA_ERROR_OUT_OF_MEMORY
inline constexpr Status kNotReady = 600;           // CUDA_ERROR_NOT_READY
inline constexpr Status kPeerAccessAlready = 704;  // CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED

inline constexpr unsigned kStreamNonBlocking = 1;   // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kIpcLazyPeerAccess = 1;   // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
inline constexpr unsigned kHostPortable = 1;        // CU_MEMHOSTALLOC_PORTABLE
inline constexpr unsigned kHostMapped = 2;          // CU_MEMHOSTALLOC_DEVICEMAP

// CUdevice_attribute
inline constexpr int kAttributeMultiprocessors = 16;
inline constexpr int kAttributeUnifiedAddressing = 41;
inline constexpr int kAttributeMajor = 75;
inline constexpr int kAttributeMinor = 76;
inline constexpr int kAttributeGpuDirectSupported = 116;
inline constexpr int kAttributeGpuDirectFlushOptions = 117;
inline constexpr int kAttributeGpuDirectWriteOrdering = 118;
inline constexpr int kAttributeDmaBufSupported = 124;

// CUflushGPUDirectRDMAWritesOptions, CUGPUDirectRDMAWritesOrdering
inline constexpr int kFlushByHost = 1;
inline constexpr int kOrderingNone = 0;
inline constexpr int kOrderingOwner = 100;
inline constexpr int kOrderingAllDevices = 200;
// CUflushGPUDirectRDMAWritesTarget, CUflushGPUDirectRDMAWritesScope
inline constexpr int kFlushTargetCurrentContext = 0;
inline constexpr int kFlushToOwner = 100;
inline constexpr int kFlushToAllDevices = 200;

// CUpointer_attribute
inline constexpr int kPointerMemoryType = 2;
inline constexpr int kPointerDeviceOrdinal = 9;
inline constexpr int kPointerIsLegacyIpcCapable = 10;
inline constexpr int kPointerAllowedHandleTypes = 14;
inline constexpr int kPointerMappingBytes = 18;
inline constexpr int kPointerMappingBase = 19;
inline constexpr unsigned kMemoryTypeDevice = 2;  // CU_MEMORYTYPE_DEVICE

// CUmemAllocationHandleType, CUmemRangeHandleType
inline constexpr int kHandlePosixFd = 1;
inline constexpr int kRangeHandleDmaBufFd = 1;

struct IpcHandle {  // CUipcMemHandle
  char reserved[64];
};

struct Uuid {  // CUuuid
  char bytes[16];
};

struct MemoryLocation {  // CUmemLocation
  int type;              // 1: device
  int id;
};
inline constexpr int kLocationDevice = 1;

struct AccessDescription {  // CUmemAccessDesc
  MemoryLocation location;
  int flags;  // 3: read and write
};
inline constexpr int kAccessReadWrite = 3;

// The driver's functions, found at run time under the names in the comments when they differ.
struct Api {
  Status (*init)(unsigned flags);
  Status (*driver_get_version)(int* version);
  Status (*get_error_name)(Status, const char**);
  Status (*get_error_string)(Status, const char**);

  Status (*device_get_count)(int*);
  Status (*device_get)(DeviceNumber*, int ordinal);
  Status (*device_get_name)(char*, int, DeviceNumber);
  Status (*device_get_attribute)(int*, int attribute, DeviceNumber);
  Status (*device_get_uuid)(Uuid*, DeviceNumber);  // cuDeviceGetUuid_v2
  Status (*device_get_pci_bus_id)(char*, int, DeviceNumber);
  Status (*device_can_access_peer)(int*, DeviceNumber, DeviceNumber peer);
  Status (*device_primary_ctx_retain)(RawContext*, DeviceNumber);
  Status (*device_primary_ctx_release)(DeviceNumber);  // cuDevicePrimaryCtxRelease_v2
  Status (*ctx_push_current)(RawContext);              // cuCtxPushCurrent_v2
  Status (*ctx_pop_current)(RawContext*);              // cuCtxPopCurrent_v2
  Status (*ctx_get_current)(RawContext*);
  Status (*ctx_enable_peer_access)(RawContext peer, unsigned flags);

  Status (*mem_alloc)(DevicePointer*, std::size_t);                              // _v2
  Status (*mem_free)(DevicePointer);                                             // _v2
  Status (*mem_get_address_range)(DevicePointer*, std::size_t*, DevicePointer);  // _v2
  Status (*mem_host_alloc)(void**, std::size_t, unsigned flags);
  Status (*mem_free_host)(void*);
  Status (*mem_host_get_device_pointer)(DevicePointer*, void*, unsigned flags);  // _v2
  Status (*memset_d8_async)(DevicePointer, unsigned char, std::size_t, RawStream);
  Status (*memcpy_htod_async)(DevicePointer, const void*, std::size_t, RawStream);    // _v2
  Status (*memcpy_dtoh_async)(void*, DevicePointer, std::size_t, RawStream);          // _v2
  Status (*memcpy_dtod_async)(DevicePointer, DevicePointer, std::size_t, RawStream);  // _v2
  Status (*pointer_get_attribute)(void*, int attribute, DevicePointer);

  Status (*stream_create_with_priority)(RawStream*, unsigned flags, int priority);
  Status (*ctx_get_stream_priority_range)(int* least, int* greatest);
  Status (*stream_destroy)(RawStream);  // _v2
  Status (*stream_synchronize)(RawStream);
  Status (*stream_query)(RawStream);
  Status (*stream_wait_event)(RawStream, RawEvent, unsigned flags);
  Status (*stream_get_ctx)(RawStream, RawContext*);
  Status (*launch_host_func)(RawStream, void (*)(void*), void*);
  Status (*event_create)(RawEvent*, unsigned flags);
  Status (*event_destroy)(RawEvent);  // _v2
  Status (*event_record)(RawEvent, RawStream);
  Status (*event_query)(RawEvent);
  Status (*event_synchronize)(RawEvent);

  Status (*module_load_data)(RawModule*, const void* image);
  Status (*module_unload)(RawModule);
  Status (*module_get_function)(RawFunction*, RawModule, const char* name);
  Status (*launch_kernel)(RawFunction, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared_bytes, RawStream, void** parameters, void** extra);

  Status (*ipc_get_mem_handle)(IpcHandle*, DevicePointer);
  Status (*ipc_open_mem_handle)(DevicePointer*, IpcHandle, unsigned flags);  // _v2
  Status (*ipc_close_mem_handle)(DevicePointer);

  Status (*mem_retain_allocation_handle)(AllocationHandle*, void* address);
  Status (*mem_export_to_shareable_handle)(void* out, AllocationHandle, int type,
                                           unsigned long long flags);
  Status (*mem_import_from_shareable_handle)(AllocationHandle*, void* os_handle, int type);
  Status (*mem_release)(AllocationHandle);
  Status (*mem_address_reserve)(DevicePointer*, std::size_t bytes, std::size_t alignment,
                                DevicePointer hint, unsigned long long flags);
  Status (*mem_address_free)(DevicePointer, std::size_t);
  Status (*mem_map)(DevicePointer, std::size_t bytes, std::size_t offset, AllocationHandle,
                    unsigned long long flags);
  Status (*mem_unmap)(DevicePointer, std::size_t);
  Status (*mem_set_access)(DevicePointer, std::size_t, const AccessDescription*, std::size_t count);

  // Null in drivers that are too old for them.
  Status (*stream_write_value32)(RawStream, DevicePointer, std::uint32_t value,
                                 unsigned flags);  // _v2
  Status (*mem_get_handle_for_address_range)(void* out, DevicePointer, std::size_t, int type,
                                             unsigned long long flags);
  Status (*flush_gpu_direct_rdma_writes)(int target, int scope);
};

}  // namespace rdma_kv::cuda
