// The CPU's half of what GpuCopies does: blocks in host memory gathered or scattered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "kv/mapping.h"
#include "kv/plan.h"
#include "transport/staged/chunk.h"
#include "transport/staged/gpu_copies.h"

namespace rdma_kv::transport::staged {

// One chunk, copied a turn at a time. What it was made of must outlive it.
class HostCopy {
 public:
  HostCopy() = default;
  HostCopy(Side side, const kv::Mapping& mapping, std::span<const kv::Run> runs,
           kv::LayerRange layers, const Packing& packing, std::uint8_t* payload) noexcept
      : side_(side),
        tensors_(mapping.tensors()),
        first_region_(layers.first * mapping.tensors()),
        packing_(&packing),
        payload_(payload),
        cursor_(runs, layers, mapping) {}

  // Copies at most `turn` bytes, and takes them off it. True when all is copied.
  bool go_on(std::uint64_t& turn) noexcept {
    while (true) {
      if (left_.bytes == 0 && !next()) return true;
      const std::uint64_t take = std::min(left_.bytes, turn);
      if (take == 0) return false;
      if (side_ == Side::kPrefill) {
        std::memcpy(at_, reinterpret_cast<const void*>(left_.src), take);
      } else {
        std::memcpy(reinterpret_cast<void*>(left_.dst), at_, take);
      }
      left_ = {left_.src + take, left_.dst + take, left_.bytes - take, left_.region};
      at_ += take;
      turn -= take;
    }
  }

 private:
  bool next() noexcept {
    const std::uint32_t before = left_.region;
    if (cursor_.next(&left_, 1) == 0) return false;
    if (left_.region != before || at_ == nullptr) {
      const std::uint32_t region = left_.region - first_region_;
      at_ = payload_ + region / tensors_ * packing_->layer_bytes +
            packing_->tensor_at[region % tensors_];
    }
    return true;
  }

  Side side_ = Side::kPrefill;
  std::uint32_t tensors_ = 1;
  std::uint32_t first_region_ = 0;
  const Packing* packing_ = nullptr;
  std::uint8_t* payload_ = nullptr;
  std::uint8_t* at_ = nullptr;
  kv::Extent left_{};
  kv::Cursor cursor_;
};

}  // namespace rdma_kv::transport::staged
