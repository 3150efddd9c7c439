// The copy kernel, loaded on one device.
#pragma once

#include <memory>
#include <string>

#include "cuda/context.h"
#include "cuda/copy_job.h"

namespace rdma_kv::cuda {

// What is compiled, as one text.
const char* copy_kernel_source() noexcept;

// Immutable once made; any thread may launch.
class CopyKernel {
 public:
  // One per process and device for as long as somebody holds it; the first call compiles, unless
  // the build has brought an image that fits. Throws Error(kUnavailable).
  static std::shared_ptr<const CopyKernel> of(int ordinal);

  explicit CopyKernel(std::shared_ptr<const Context> context);  // rather use of()
  ~CopyKernel();
  CopyKernel(const CopyKernel&) = delete;
  CopyKernel& operator=(const CopyKernel&) = delete;

  const std::shared_ptr<const Context>& context() const noexcept { return context_; }
  const std::string& origin() const noexcept { return origin_; }  // how it was compiled
  int multiprocessors() const noexcept { return multiprocessors_; }

  // With the context current. Copies that share
  // `job.arrivals` run one after the other.
  [[nodiscard]] Status launch(const CopyJob& job, unsigned thread_blocks,
                              RawStream stream) const noexcept;

 private:
  std::shared_ptr<const Context> context_;
  RawModule module_ = nullptr;
  RawFunction function_ = nullptr;
  int multiprocessors_;
  std::string origin_;
};

}  // namespace rdma_kv::cuda
