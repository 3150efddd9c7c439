// Both sides' memory as the copy kernel finds it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda/copy_job.h"
#include "cuda/import.h"
#include "cuda/memory.h"
#include "kv/layout.h"
#include "kv/mapping.h"
#include "transport/cuda_ipc/link.h"

namespace rdma_kv::transport::cuda_ipc {

// The peer's blocks, mapped here, and the tables of where every region begins, on the GPU.
// Immutable. Going unmaps, which may wait for the GPU: after the last copy, and not on the
// reactor's thread.
class Target {
 public:
  // Throws Error(kUnavailable).
  Target(std::shared_ptr<const cuda::Context> context, const kv::Layout& layout,
         const kv::Mapping& mapping, const Offer& offer);

  // A job of all but blocks and layers.
  const cuda::CopyJob& job() const noexcept { return job_; }
  // An extent of the plan, whose destination is the peer's address, as it is here.
  std::uint64_t dst_here(const kv::Mapping& mapping, const kv::Extent& extent) const noexcept {
    return extent.dst - mapping.dst_base(extent.region) + dst_bases_[extent.region];
  }
  std::uint64_t mapped_bytes() const noexcept { return imports_ ? imports_->bytes() : 0; }

 private:
  std::shared_ptr<const cuda::Context> context_;
  std::optional<cuda::Imports> imports_;  // empty: the peer is this process
  std::vector<std::uint64_t> dst_bases_;
  std::optional<cuda::DeviceMemory> tables_;
  cuda::CopyJob job_{};
};

}  // namespace rdma_kv::transport::cuda_ipc
