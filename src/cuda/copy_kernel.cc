#include "cuda/copy_kernel.h"

#include <map>
#include <mutex>
#include <vector>

#include "cuda/copy_kernel_image.h"  // made by setup.py
#include "cuda/limits.h"
#include "cuda/nvrtc.h"

namespace rdma_kv::cuda {

const char* copy_kernel_source() noexcept { return kCopyKernelSource; }

std::shared_ptr<const CopyKernel> CopyKernel::of(int ordinal) {
  static std::mutex mutex;
  static auto& known = *new std::map<int, std::weak_ptr<const CopyKernel>>;
  const std::lock_guard lock(mutex);
  auto& entry = known[ordinal];
  if (auto held = entry.lock()) return held;
  auto made = std::make_shared<const CopyKernel>(Context::of(ordinal));
  entry = made;
  return made;
}

CopyKernel::CopyKernel(std::shared_ptr<const Context> context)
    : context_(std::move(context)),
      multiprocessors_(context_->attribute(kAttributeMultiprocessors)) {
  const Current current(*context_);
  if (kCopyKernelImageBytes > 0 && api().module_load_data(&module_, kCopyKernelImage) == kSuccess) {
    origin_ = "compiled by nvcc when this was built";
  } else {
    const int major = context_->attribute(kAttributeMajor);
    const int minor = context_->attribute(kAttributeMinor);
    const std::vector<char> image = compile(kCopyKernelSource, major, minor);
    check(api().module_load_data(&module_, image.data()), "cuModuleLoadData");
    origin_ = join("compiled by NVRTC for compute capability ", major, ".", minor);
  }
  if (const Status status = api().module_get_function(&function_, module_, "rdma_kv_copy")) {
    note(api().module_unload(module_), "cuModuleUnload");
    check(status, "cuModuleGetFunction");
  }
}

CopyKernel::~CopyKernel() {
  const Current current(*context_);
  note(opened_api().module_unload(module_), "cuModuleUnload");
}

Status CopyKernel::launch(const CopyJob& job, unsigned thread_blocks,
                          RawStream stream) const noexcept {
  void* parameters[] = {const_cast<CopyJob*>(&job)};
  return opened_api().launch_kernel(function_, thread_blocks, 1, 1, kThreadsPerBlock, 1, 1, 0,
                                    stream, parameters, nullptr);
}

}  // namespace rdma_kv::cuda
