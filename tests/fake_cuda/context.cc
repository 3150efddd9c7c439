#include "fake_cuda/context.h"

#include <array>
#include <vector>

#include "fake_cuda/memory.h"
#include "fake_cuda/stream.h"

namespace fake {
namespace {

using rdma_kv::cuda::CUctx_st;

std::array<CUctx_st, 16>& contexts() {
  static auto& all = *[] {
    auto* const made = new std::array<CUctx_st, 16>;
    for (std::size_t i = 0; i < made->size(); ++i) (*made)[i].device = static_cast<int>(i);
    return made;
  }();
  return all;
}

thread_local std::vector<RawContext> stack;

bool is_known(RawContext context) {
  const auto number = context - contexts().data();
  return context != nullptr && number >= 0 && number < device_count();
}

}  // namespace

RawContext current_context() { return stack.empty() ? nullptr : stack.back(); }
bool is_alive(RawContext context) { return is_known(context) && context->holders > 0; }
RawContext context_of(DeviceNumber device) { return &contexts()[static_cast<std::size_t>(device)]; }

void wait_for_all(RawContext context) {
  const auto pending = [&] {
    const std::lock_guard lock(world());
    return Pending(context);
  }();
  pending.wait();
}

}  // namespace fake

using namespace fake;

EXPORTED Status cuDevicePrimaryCtxRetain(RawContext* out, DeviceNumber device) {
  ENTER("cuDevicePrimaryCtxRetain");
  const std::lock_guard lock(world());
  if (out == nullptr) return kCuInvalidValue;
  if (device < 0 || device >= device_count()) return kCuInvalidDevice;
  *out = context_of(device);
  ++(*out)->holders;
  return kSuccess;
}

// With its last holder a context loses its streams, its events and its memory.
EXPORTED Status cuDevicePrimaryCtxRelease_v2(DeviceNumber device) {
  ENTER("cuDevicePrimaryCtxRelease_v2");
  RawContext context = nullptr;
  {
    const std::lock_guard lock(world());
    if (device < 0 || device >= device_count()) return kCuInvalidDevice;
    context = context_of(device);
    if (context->holders == 0) return kCuInvalidContext;
    if (context->holders > 1) {
      --context->holders;
      return kSuccess;
    }
  }
  wait_for_all(context);
  const std::lock_guard lock(world());
  if (--context->holders > 0) return kSuccess;
  forget_streams(context);
  forget_memory(context);
  context->peers.clear();
  return kSuccess;
}

EXPORTED Status cuCtxPushCurrent_v2(RawContext context) {
  ENTER("cuCtxPushCurrent_v2");
  const std::lock_guard lock(world());
  if (!is_alive(context)) return kCuInvalidContext;
  stack.push_back(context);
  return kSuccess;
}

EXPORTED Status cuCtxPopCurrent_v2(RawContext* out) {
  ENTER("cuCtxPopCurrent_v2");
  if (stack.empty()) return kCuInvalidContext;
  if (out != nullptr) *out = stack.back();
  stack.pop_back();
  return kSuccess;
}

EXPORTED Status cuCtxGetCurrent(RawContext* out) {
  ENTER("cuCtxGetCurrent");
  if (out == nullptr) return kCuInvalidValue;
  *out = current_context();
  return kSuccess;
}

// Replaces what is current; null leaves none.
EXPORTED Status cuCtxSetCurrent(RawContext context) {
  ENTER("cuCtxSetCurrent");
  const std::lock_guard lock(world());
  if (context != nullptr && !is_alive(context)) return kCuInvalidContext;
  if (!stack.empty()) stack.pop_back();
  if (context != nullptr) stack.push_back(context);
  return kSuccess;
}

EXPORTED Status cuCtxGetDevice(DeviceNumber* out) {
  ENTER("cuCtxGetDevice");
  const std::lock_guard lock(world());
  if (out == nullptr) return kCuInvalidValue;
  if (!is_alive(current_context())) return kCuInvalidContext;
  *out = current_context()->device;
  return kSuccess;
}

EXPORTED Status cuCtxEnablePeerAccess(RawContext peer, unsigned flags) {
  ENTER("cuCtxEnablePeerAccess");
  const std::lock_guard lock(world());
  if (flags != 0) return kCuInvalidValue;
  if (!is_alive(current_context()) || !is_alive(peer)) return kCuInvalidContext;
  if (peer == current_context()) return kCuInvalidDevice;
  return current_context()->peers.insert(peer).second ? kSuccess : kPeerAccessAlready;
}
