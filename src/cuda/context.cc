#include "cuda/context.h"

#include <map>
#include <mutex>

namespace rdma_kv::cuda {

std::shared_ptr<const Context> Context::of(int ordinal) {
  static std::mutex mutex;
  static auto& known = *new std::map<int, std::weak_ptr<const Context>>;  // outlives every holder
  const std::lock_guard lock(mutex);
  auto& entry = known[ordinal];
  if (auto held = entry.lock()) return held;
  auto made = std::make_shared<const Context>(ordinal);
  entry = made;
  return made;
}

Context::Context(int ordinal) : ordinal_(ordinal) {
  int count = 0;
  check(api().device_get_count(&count), "cuDeviceGetCount");
  if (ordinal < 0 || ordinal >= count) {
    throw Error(Errc::kUnavailable, join("there is no GPU ", ordinal, ": ", count,
                                         " are visible here; see CUDA_VISIBLE_DEVICES"));
  }
  check(api().device_get(&device_, ordinal), "cuDeviceGet");
  check(api().device_primary_ctx_retain(&raw_, device_), "cuDevicePrimaryCtxRetain");
}

Context::~Context() {
  note(opened_api().device_primary_ctx_release(device_), "cuDevicePrimaryCtxRelease");
}

int Context::attribute(int which) const {
  int value = 0;
  check(api().device_get_attribute(&value, which, device_), "cuDeviceGetAttribute");
  return value;
}

std::string Context::name() const {
  char text[128] = "";
  check(api().device_get_name(text, sizeof text - 1, device_), "cuDeviceGetName");
  return join(text, " (GPU ", ordinal_, ")");
}

Uuid Context::uuid() const {
  Uuid uuid{};
  check(api().device_get_uuid(&uuid, device_), "cuDeviceGetUuid");
  return uuid;
}

}  // namespace rdma_kv::cuda
