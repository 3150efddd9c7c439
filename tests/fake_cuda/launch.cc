// Modules, their functions, and launches of the few kernels that are known here.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "fake_cuda/copy_kernel.h"
#include "fake_cuda/memory.h"
#include "fake_cuda/stream.h"

namespace fake {
namespace {

using Clock = std::chrono::steady_clock;

struct Launch {
  RawContext context;
  unsigned thread_blocks;
  unsigned threads;
  void** parameters;

  // The argument of that number, copied: the caller's may be gone when the kernel runs.
  template <class Value>
  Value argument(std::size_t number) const {
    Value value;
    std::memcpy(&value, parameters[number], sizeof value);
    return value;
  }
};

using Kernel = std::function<void()> (*)(const Launch&);

// With world() held; what a GPU could not reach, it must not be told to.
void require_reachable_job(RawContext context, const CopyJob& job) {
  const auto address = [](const auto* memory) { return reinterpret_cast<DevicePointer>(memory); };
  const auto check = [&](DevicePointer first, std::size_t bytes, const char* what) {
    require_reachable(context, first, bytes, what);
  };
  check(address(job.words), sizeof *job.words, "its words");
  check(address(job.arrivals), sizeof *job.arrivals, "its counter of arrivals");
  check(address(job.blocks), sizeof *job.blocks * job.block_count, "its table of blocks");
  const std::size_t regions = (job.first_layer + job.layer_count) * job.tensor_count;
  for (const auto* bases : {job.src_bases, job.dst_bases}) {
    if (bases != nullptr) check(address(bases), sizeof *bases * regions, "its table of bases");
  }
}

std::function<void()> copy_kernel(const Launch& launch) {
  const auto job = launch.argument<CopyJob>(0);
  require_reachable_job(launch.context, job);
  return [=] { run_copy(job, launch.thread_blocks, launch.threads); };
}

// test_fill_slowly(to, bytes, value, microseconds, gate): see tests/support/cuda.py.
std::function<void()> slow_fill(const Launch& launch) {
  const auto to = launch.argument<DevicePointer>(0);
  const auto bytes = launch.argument<unsigned long long>(1);
  const auto value = launch.argument<unsigned>(2);
  const auto patience = std::chrono::microseconds(launch.argument<unsigned long long>(3));
  const auto gate = launch.argument<const volatile unsigned*>(4);
  require_reachable(launch.context, to, bytes, "what it fills");
  return [=] {
    const auto deadline = Clock::now() + patience;
    while (Clock::now() < deadline && (gate == nullptr || *gate == 0)) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    std::memset(reinterpret_cast<void*>(to), static_cast<int>(value), bytes);
  };
}

const std::map<std::string, Kernel, std::less<>>& kernels() {
  static const auto& all = *new std::map<std::string, Kernel, std::less<>>{
      {"rdma_kv_copy", copy_kernel}, {"test_fill_slowly", slow_fill}};
  return all;
}

}  // namespace
}  // namespace fake

namespace rdma_kv::cuda {

struct CUmod_st {
  RawContext context;
  std::string text;  // of a binary image: empty, and it is taken to have every function
};

struct CUfunc_st {
  RawModule module;
  fake::Kernel kernel;
};

}  // namespace rdma_kv::cuda

namespace fake {
namespace {

using rdma_kv::cuda::CUfunc_st;
using rdma_kv::cuda::CUmod_st;

std::map<RawModule, std::unique_ptr<CUmod_st>>& modules() {
  static auto& all = *new std::map<RawModule, std::unique_ptr<CUmod_st>>;
  return all;
}

std::map<RawFunction, std::unique_ptr<CUfunc_st>>& functions() {
  static auto& all = *new std::map<RawFunction, std::unique_ptr<CUfunc_st>>;
  return all;
}

bool is_binary(const void* image) {
  constexpr unsigned char kElf[4] = {0x7f, 'E', 'L', 'F'};
  constexpr unsigned char kFatbin[4] = {0x50, 0xed, 0x55, 0xba};
  return std::memcmp(image, kElf, 4) == 0 || std::memcmp(image, kFatbin, 4) == 0;
}

bool is_text(std::string_view image) {
  return image.find(".version") != image.npos || image.rfind("FAKE CUBIN", 0) == 0;
}

}  // namespace
}  // namespace fake

using namespace fake;

EXPORTED Status cuModuleLoadData(RawModule* out, const void* image) {
  ENTER("cuModuleLoadData");
  const std::lock_guard lock(world());
  if (out == nullptr || image == nullptr) return kCuInvalidValue;
  if (!is_alive(current_context())) return kCuInvalidContext;
  auto made = std::make_unique<CUmod_st>();
  made->context = current_context();
  if (!is_binary(image)) made->text = static_cast<const char*>(image);
  if (!is_binary(image) && !is_text(made->text)) return kCuInvalidImage;
  *out = made.get();
  modules()[*out] = std::move(made);
  return kSuccess;
}

EXPORTED Status cuModuleUnload(RawModule module) {
  ENTER("cuModuleUnload");
  RawContext context = nullptr;
  {
    const std::lock_guard lock(world());
    if (!modules().contains(module)) return kCuInvalidHandle;
    context = module->context;
  }
  wait_for_all(context);
  const std::lock_guard lock(world());
  std::erase_if(functions(), [&](const auto& entry) { return entry.second->module == module; });
  return modules().erase(module) == 1 ? kSuccess : kCuInvalidHandle;
}

EXPORTED Status cuModuleGetFunction(RawFunction* out, RawModule module, const char* name) {
  ENTER("cuModuleGetFunction");
  const std::lock_guard lock(world());
  if (out == nullptr || name == nullptr) return kCuInvalidValue;
  if (!modules().contains(module)) return kCuInvalidHandle;
  const auto kernel = kernels().find(name);
  if (kernel == kernels().end()) return kCuNotFound;
  if (!module->text.empty() && module->text.find(name) == std::string::npos) return kCuNotFound;
  auto made = std::make_unique<CUfunc_st>(CUfunc_st{module, kernel->second});
  *out = made.get();
  functions()[*out] = std::move(made);
  return kSuccess;
}

EXPORTED Status cuLaunchKernel(RawFunction function, unsigned grid_x, unsigned grid_y,
                               unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned, RawStream stream, void** parameters,
                               void** extra) {
  ENTER("cuLaunchKernel");
  const std::lock_guard lock(world());
  if (!functions().contains(function)) return kCuInvalidHandle;
  if (grid_x == 0 || grid_y != 1 || grid_z != 1) return kCuInvalidValue;
  if (block_x == 0 || block_x % 32 != 0 || block_y != 1 || block_z != 1) return kCuInvalidValue;
  if (parameters == nullptr || extra != nullptr) return kCuInvalidValue;
  if (block_x > 1024) return kCuOutOfResources;  // the launch bounds of the copy kernel
  const RawContext context = current_context();
  if (!is_alive(context) || function->module->context != context) return kCuInvalidContext;
  const auto work = function->kernel({context, grid_x, block_x, parameters});
  return submit_here(stream, [work] {
    // Read at every launch, so that a test can change it.
    const int delay = number_from_environment("RDMA_KV_FAKE_GPU_DELAY_US", 0);
    if (delay > 0) ::usleep(static_cast<useconds_t>(delay));
    work();
  });
}
