// Blocks of this end's GPU gathered into the ring, or scattered from it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cuda/copy_queue.h"
#include "cuda/memory.h"
#include "kv/layout.h"
#include "kv/mapping.h"
#include "transport/staged/chunk.h"

namespace rdma_kv::transport::staged {

enum class Side { kPrefill, kDecode };

// Not thread-safe. Going may wait for the GPU; see release_aside().
class GpuCopies {
 public:
  // `layout` is this end's. Throws Error.
  GpuCopies(std::shared_ptr<const cuda::CopyKernel> kernel, const kv::Layout& layout,
            const kv::Mapping& mapping, Side side);

  cuda::CopyQueue& queue() noexcept { return queue_; }

  // The layers of blocks [first, first + count) of `runs`, on this end; `payload` is where they are
  // packed, as the GPU sees it.
  [[nodiscard]] cuda::Status start(cuda::Slot& slot, cuda::DevicePointer payload,
                                   const Packing& packing, kv::LayerRange layers,
                                   std::span<const kv::Run> runs, std::uint64_t first,
                                   std::uint64_t count) noexcept;

 private:
  const Side side_;
  cuda::PinnedMemory bases_;  // of regions, with the slice's offset; declared before the queue
  cuda::CopyQueue queue_;
  cuda::CopyJob job_{};
  std::array<std::uint64_t, kv::kMostTensors> bits_{};  // of each tensor's addresses
};

}  // namespace rdma_kv::transport::staged
