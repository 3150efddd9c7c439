#include "cuda/driver.h"

#include <dlfcn.h>

#include <memory>
#include <mutex>
#include <optional>

#include "base/log.h"

namespace rdma_kv::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

const Api* opened = nullptr;  // never freed: owners may outlive every static object

[[noreturn]] void missing(const std::string& what) {
  throw Error(Errc::kUnavailable, join("GPU memory needs the driver's ", kLibrary, ": ", what,
                                       "; is an NVIDIA driver installed, and is a GPU passed to "
                                       "this container?"));
}

class Finder {
 public:
  explicit Finder(void* library) : library_(library) {}

  template <class Function>
  void operator()(const char* name, Function& out) const {
    optional(name, out);
    if (out == nullptr) missing(join("it has no ", name, "; a newer driver is needed"));
  }
  template <class Function>
  void optional(const char* name, Function& out) const {
    out = reinterpret_cast<Function>(::dlsym(library_, name));
  }

 private:
  void* library_;
};

std::unique_ptr<const Api> find_all(void* library) {
  const Finder find(library);
  auto api = std::make_unique<Api>();
  find("cuInit", api->init);
  find("cuDriverGetVersion", api->driver_get_version);
  find("cuGetErrorName", api->get_error_name);
  find("cuGetErrorString", api->get_error_string);
  find("cuDeviceGetCount", api->device_get_count);
  find("cuDeviceGet", api->device_get);
  find("cuDeviceGetName", api->device_get_name);
  find("cuDeviceGetAttribute", api->device_get_attribute);
  find("cuDeviceGetUuid_v2", api->device_get_uuid);
  find("cuDeviceGetPCIBusId", api->device_get_pci_bus_id);
  find("cuDeviceCanAccessPeer", api->device_can_access_peer);
  find("cuDevicePrimaryCtxRetain", api->device_primary_ctx_retain);
  find("cuDevicePrimaryCtxRelease_v2", api->device_primary_ctx_release);
  find("cuCtxPushCurrent_v2", api->ctx_push_current);
  find("cuCtxPopCurrent_v2", api->ctx_pop_current);
  find("cuCtxGetCurrent", api->ctx_get_current);
  find("cuCtxEnablePeerAccess", api->ctx_enable_peer_access);
  find("cuMemAlloc_v2", api->mem_alloc);
  find("cuMemFree_v2", api->mem_free);
  find("cuMemGetAddressRange_v2", api->mem_get_address_range);
  find("cuMemHostAlloc", api->mem_host_alloc);
  find("cuMemFreeHost", api->mem_free_host);
  find("cuMemHostGetDevicePointer_v2", api->mem_host_get_device_pointer);
  find("cuMemsetD8Async", api->memset_d8_async);
  find("cuMemcpyHtoDAsync_v2", api->memcpy_htod_async);
  find("cuMemcpyDtoHAsync_v2", api->memcpy_dtoh_async);
  find("cuMemcpyDtoDAsync_v2", api->memcpy_dtod_async);
  find("cuPointerGetAttribute", api->pointer_get_attribute);
  find("cuStreamCreateWithPriority", api->stream_create_with_priority);
  find("cuCtxGetStreamPriorityRange", api->ctx_get_stream_priority_range);
  find("cuStreamDestroy_v2", api->stream_destroy);
  find("cuStreamSynchronize", api->stream_synchronize);
  find("cuStreamQuery", api->stream_query);
  find("cuStreamWaitEvent", api->stream_wait_event);
  find("cuStreamGetCtx", api->stream_get_ctx);
  find("cuLaunchHostFunc", api->launch_host_func);
  find("cuEventCreate", api->event_create);
  find("cuEventDestroy_v2", api->event_destroy);
  find("cuEventRecord", api->event_record);
  find("cuEventQuery", api->event_query);
  find("cuEventSynchronize", api->event_synchronize);
  find("cuModuleLoadData", api->module_load_data);
  find("cuModuleUnload", api->module_unload);
  find("cuModuleGetFunction", api->module_get_function);
  find("cuLaunchKernel", api->launch_kernel);
  find("cuIpcGetMemHandle", api->ipc_get_mem_handle);
  find("cuIpcOpenMemHandle_v2", api->ipc_open_mem_handle);
  find("cuIpcCloseMemHandle", api->ipc_close_mem_handle);
  find("cuMemRetainAllocationHandle", api->mem_retain_allocation_handle);
  find("cuMemExportToShareableHandle", api->mem_export_to_shareable_handle);
  find("cuMemImportFromShareableHandle", api->mem_import_from_shareable_handle);
  find("cuMemRelease", api->mem_release);
  find("cuMemAddressReserve", api->mem_address_reserve);
  find("cuMemAddressFree", api->mem_address_free);
  find("cuMemMap", api->mem_map);
  find("cuMemUnmap", api->mem_unmap);
  find("cuMemSetAccess", api->mem_set_access);
  find.optional("cuStreamWriteValue32_v2", api->stream_write_value32);
  find.optional("cuMemGetHandleForAddressRange", api->mem_get_handle_for_address_range);
  find.optional("cuFlushGPUDirectRDMAWrites", api->flush_gpu_direct_rdma_writes);
  return api;
}

void open() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) missing(::dlerror());
  auto api = find_all(library);
  const Status status = api->init(0);
  const char* name = nullptr;
  if (status != kSuccess) {
    if (api->get_error_name(status, &name) != kSuccess || name == nullptr) name = "unknown error";
    missing(join("cuInit: ", name));
  }
  opened = api.release();
}

}  // namespace

const Api& api() {
  static std::mutex mutex;
  static std::optional<Error> failed;
  const std::lock_guard lock(mutex);
  if (opened != nullptr) return *opened;
  if (failed) throw *failed;
  try {
    open();
  } catch (const Error& error) {
    failed = error;
    throw;
  }
  return *opened;
}

const Api& opened_api() noexcept { return *opened; }

std::string reason_of(Status status) {
  const char* name = nullptr;
  const char* words = nullptr;
  if (opened_api().get_error_name(status, &name) != kSuccess || name == nullptr) {
    return join("CUDA error ", status);
  }
  if (opened_api().get_error_string(status, &words) != kSuccess || words == nullptr) return name;
  return join(name, " (", words, ")");
}

void note(Status status, const char* call) noexcept {
  if (status != kSuccess) log(LogLevel::kWarning, join(call, ": ", reason_of(status)));
}

}  // namespace rdma_kv::cuda
