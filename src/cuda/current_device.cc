#include "cuda/current_device.h"

namespace rdma_kv::cuda {

CurrentDevice::CurrentDevice(int device) {
  const Api& driver = api();
  check(driver.device_get(&number_, device), "cuDeviceGet");
  RawContext context = nullptr;
  check(driver.device_primary_ctx_retain(&context, number_), "cuDevicePrimaryCtxRetain");
  const Status status = driver.ctx_push_current(context);
  if (status == kSuccess) return;
  note(driver.device_primary_ctx_release(number_), "cuDevicePrimaryCtxRelease");
  check(status, "cuCtxPushCurrent");
}

CurrentDevice::~CurrentDevice() {
  const Api& driver = opened_api();
  RawContext context = nullptr;
  note(driver.ctx_pop_current(&context), "cuCtxPopCurrent");
  note(driver.device_primary_ctx_release(number_), "cuDevicePrimaryCtxRelease");
}

}  // namespace rdma_kv::cuda
