#include "kv/layout.h"

#include <utility>

#include "base/error.h"

namespace rdma_kv::kv {

std::uint64_t region_bytes(const Geometry& geometry, const TensorSpec& tensor) noexcept {
  // At most 2^31 * 2^32: fits 64 bits.
  return (geometry.block_count - 1) * tensor.stride_bytes + tensor.block_bytes;
}

Layout::Layout(Geometry geometry, std::vector<std::uint64_t> bases, std::vector<int> devices)
    : geometry_(std::move(geometry)), bases_(std::move(bases)), devices_(std::move(devices)) {
  geometry_.check();
  const std::size_t tensors = geometry_.tensors.size();
  const std::size_t regions = geometry_.layers * tensors;
  if (bases_.size() != regions || devices_.size() != regions) {
    throw Error(Errc::kValue, join(bases_.size(), " base addresses and ", devices_.size(),
                                   " devices for ", geometry_.layers, " layers of ", tensors,
                                   " tensors; there must be ", regions, " of each"));
  }
  for (std::size_t i = 0; i < regions; ++i) {
    const auto& tensor = geometry_.tensors[i % tensors];
    const auto where = [&] {
      return join("pointer of ", name_of(tensor.kind), " of layer ", i / tensors);
    };
    if (bases_[i] == 0) throw Error(Errc::kValue, join(where(), " is 0; pass a tensor or address"));
    if (bases_[i] + region_bytes(geometry_, tensor) < bases_[i]) {
      throw Error(Errc::kValue,
                  join(where(), " is ", bases_[i], ": its ", region_bytes(geometry_, tensor),
                       " bytes run past the end of the address space"));
    }
  }
}

Region Layout::region(std::uint32_t index) const noexcept {
  const auto& tensor = geometry_.tensors[index % geometry_.tensors.size()];
  return {bases_[index], region_bytes(geometry_, tensor), devices_[index]};
}

bool Layout::has_device_memory() const noexcept {
  for (const int device : devices_) {
    if (device != kHostDevice) return true;
  }
  return false;
}

}  // namespace rdma_kv::kv
