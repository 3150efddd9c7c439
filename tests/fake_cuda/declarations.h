// Declares what src/cuda/api.h names with the types that it names: a definition here that differs
// does not compile.
#pragma once

#include <type_traits>

#include "fake_cuda/status.h"

#define DECLARE(field, function) \
  extern "C" std::remove_pointer_t<decltype(rdma_kv::cuda::Api::field)> function

DECLARE(init, cuInit);
DECLARE(driver_get_version, cuDriverGetVersion);
DECLARE(get_error_name, cuGetErrorName);
DECLARE(get_error_string, cuGetErrorString);
DECLARE(device_get_count, cuDeviceGetCount);
DECLARE(device_get, cuDeviceGet);
DECLARE(device_get_name, cuDeviceGetName);
DECLARE(device_get_attribute, cuDeviceGetAttribute);
DECLARE(device_get_uuid, cuDeviceGetUuid_v2);
DECLARE(device_get_pci_bus_id, cuDeviceGetPCIBusId);
DECLARE(device_can_access_peer, cuDeviceCanAccessPeer);
DECLARE(device_primary_ctx_retain, cuDevicePrimaryCtxRetain);
DECLARE(device_primary_ctx_release, cuDevicePrimaryCtxRelease_v2);
DECLARE(ctx_push_current, cuCtxPushCurrent_v2);
DECLARE(ctx_pop_current, cuCtxPopCurrent_v2);
DECLARE(ctx_get_current, cuCtxGetCurrent);
DECLARE(ctx_enable_peer_access, cuCtxEnablePeerAccess);
DECLARE(mem_alloc, cuMemAlloc_v2);
DECLARE(mem_free, cuMemFree_v2);
DECLARE(mem_get_address_range, cuMemGetAddressRange_v2);
DECLARE(mem_host_alloc, cuMemHostAlloc);
DECLARE(mem_free_host, cuMemFreeHost);
DECLARE(mem_host_get_device_pointer, cuMemHostGetDevicePointer_v2);
DECLARE(memset_d8_async, cuMemsetD8Async);
DECLARE(stream_write_value32, cuStreamWriteValue32_v2);
DECLARE(memcpy_htod_async, cuMemcpyHtoDAsync_v2);
DECLARE(memcpy_dtoh_async, cuMemcpyDtoHAsync_v2);
DECLARE(memcpy_dtod_async, cuMemcpyDtoDAsync_v2);
DECLARE(pointer_get_attribute, cuPointerGetAttribute);
DECLARE(stream_create_with_priority, cuStreamCreateWithPriority);
DECLARE(ctx_get_stream_priority_range, cuCtxGetStreamPriorityRange);
DECLARE(stream_destroy, cuStreamDestroy_v2);
DECLARE(stream_synchronize, cuStreamSynchronize);
DECLARE(stream_query, cuStreamQuery);
DECLARE(stream_wait_event, cuStreamWaitEvent);
DECLARE(stream_get_ctx, cuStreamGetCtx);
DECLARE(launch_host_func, cuLaunchHostFunc);
DECLARE(event_create, cuEventCreate);
DECLARE(event_destroy, cuEventDestroy_v2);
DECLARE(event_record, cuEventRecord);
DECLARE(event_query, cuEventQuery);
DECLARE(event_synchronize, cuEventSynchronize);
DECLARE(module_load_data, cuModuleLoadData);
DECLARE(module_unload, cuModuleUnload);
DECLARE(module_get_function, cuModuleGetFunction);
DECLARE(launch_kernel, cuLaunchKernel);
DECLARE(ipc_get_mem_handle, cuIpcGetMemHandle);
DECLARE(ipc_open_mem_handle, cuIpcOpenMemHandle_v2);
DECLARE(ipc_close_mem_handle, cuIpcCloseMemHandle);
DECLARE(mem_retain_allocation_handle, cuMemRetainAllocationHandle);
DECLARE(mem_export_to_shareable_handle, cuMemExportToShareableHandle);
DECLARE(mem_import_from_shareable_handle, cuMemImportFromShareableHandle);
DECLARE(mem_release, cuMemRelease);
DECLARE(mem_address_reserve, cuMemAddressReserve);
DECLARE(mem_address_free, cuMemAddressFree);
DECLARE(mem_map, cuMemMap);
DECLARE(mem_unmap, cuMemUnmap);
DECLARE(mem_set_access, cuMemSetAccess);
DECLARE(mem_get_handle_for_address_range, cuMemGetHandleForAddressRange);
DECLARE(flush_gpu_direct_rdma_writes, cuFlushGPUDirectRDMAWrites);

#undef DECLARE
