// The memory that chunks lie in at one end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "cuda/memory.h"

namespace rdma_kv::transport::staged {

// Page-locked where this end's blocks are on a GPU, plain otherwise; zeroed, page-aligned.
class Ring {
 public:
  // `context`: of the GPU, or null. Throws Error(kRegistration).
  Ring(std::shared_ptr<const cuda::Context> context, std::uint64_t bytes);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::uint8_t* data() const noexcept { return data_; }
  std::uint64_t address() const noexcept { return reinterpret_cast<std::uint64_t>(data_); }
  cuda::DevicePointer on_device() const noexcept { return pinned_ ? pinned_->on_device() : 0; }

 private:
  std::unique_ptr<cuda::PinnedMemory> pinned_;
  std::uint8_t* data_ = nullptr;
  std::uint64_t bytes_;
};

// Runs `release` on a thread of its own: freeing what a GPU has used waits for whatever that GPU
// does, a model's kernels too. The process does not end before it, for a second.
void release_aside(std::function<void()> release) noexcept;

}  // namespace rdma_kv::transport::staged
