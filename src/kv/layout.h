// (layer, tensor, block) -> address, for one side.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/geometry.h"

namespace rdma_kv::kv {

inline constexpr int kHostDevice = -1;

// One registered tensor: `bytes` from `base`, on the host (kHostDevice) or a CUDA device.
struct Region {
  std::uint64_t base;
  std::uint64_t bytes;
  int device;
};

// The bytes are borrowed: whoever builds a Layout keeps the tensors alive. Immutable, so it may be
// read from any thread. Region index = layer * tensors + position of the tensor in the geometry.
class Layout {
 public:
  // `bases` and `devices` have layers * tensors entries, in the order of the region index.
  // Throws Error(kValue) when a count is wrong, a base is 0 or a region wraps around.
  Layout(Geometry geometry, std::vector<std::uint64_t> bases, std::vector<int> devices);

  const Geometry& geometry() const noexcept { return geometry_; }
  std::uint32_t region_count() const noexcept { return static_cast<std::uint32_t>(bases_.size()); }
  std::uint64_t base(std::uint32_t region) const noexcept { return bases_[region]; }
  Region region(std::uint32_t index) const noexcept;
  bool has_device_memory() const noexcept;

 private:
  Geometry geometry_;
  std::vector<std::uint64_t> bases_;
  std::vector<int> devices_;
};

// Bytes from the first to the last of a tensor's blocks: (n - 1) * stride + block.
std::uint64_t region_bytes(const Geometry& geometry, const TensorSpec& tensor) noexcept;

}  // namespace rdma_kv::kv
