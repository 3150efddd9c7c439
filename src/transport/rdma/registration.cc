#include "transport/rdma/registration.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "cuda/dmabuf.h"

namespace rdma_kv::transport::rdma {
namespace {

class Registrar {
 public:
  Registrar(const std::shared_ptr<const verbs::Device>& device, const kv::Layout& layout,
            unsigned chunk_shift, verbs::MemoryAccess access)
      : device_(device),
        layout_(layout),
        chunk_shift_(chunk_shift),
        access_(access),
        made_(layout.region_count()) {}

  Registration run() {
    // First: what is wrong with host memory is no reason against a way to reach a GPU.
    for_each(false, [this](const kv::Region& region) { return by_address(region); });
    std::string gpu_memory = layout_.has_device_memory() ? register_device_memory() : "";
    std::vector<verbs::MemoryRegion> regions;
    regions.reserve(made_.size());
    for (auto& region : made_) regions.push_back(std::move(*region));
    return {std::move(regions), std::move(gpu_memory)};
  }

 private:
  template <class Make>
  void for_each(bool on_device, Make make) {
    for (std::uint32_t index = 0; index < layout_.region_count(); ++index) {
      const kv::Region region = layout_.region(index);
      if ((region.device != kv::kHostDevice) == on_device) made_[index].emplace(make(region));
    }
  }

  std::string register_device_memory() {
    std::string no_dma_buf;
    try {
      for_each(true, [this](const kv::Region& region) { return by_dma_buf(region); });
      return "GPU memory through dma-buf";
    } catch (const Error& error) {
      no_dma_buf = error.what();
    }
    for (std::uint32_t index = 0; index < layout_.region_count(); ++index) {
      if (layout_.region(index).device != kv::kHostDevice) made_[index].reset();
    }
    try {
      for_each(true, [this](const kv::Region& region) { return by_peer_memory(region); });
    } catch (const Error& error) {
      throw Error(Errc::kRegistration, join("the NIC cannot reach GPU memory: dma-buf: ",
                                            no_dma_buf, "; nvidia-peermem: ", error.what()));
    }
    return join("GPU memory through nvidia-peermem; dma-buf: ", no_dma_buf);
  }

  verbs::MemoryRegion by_address(const kv::Region& region) const {
    return {device_, region, chunk_shift_, access_};
  }

  verbs::MemoryRegion by_dma_buf(const kv::Region& region) const {
    const cuda::DmaBuf buffer(region.base, region.bytes, region.device);
    return {device_, region, chunk_shift_, access_, {buffer.fd(), buffer.offset()}};
  }

  verbs::MemoryRegion by_peer_memory(const kv::Region& region) const {
    if (cuda::is_managed(region.base)) {
      throw Error(Errc::kRegistration,
                  join("the memory at 0x", Hex{region.base},
                       " is managed (cudaMallocManaged) and moves between host and device; use "
                       "memory of the device alone"));
    }
    return by_address(region);
  }

  const std::shared_ptr<const verbs::Device>& device_;
  const kv::Layout& layout_;
  const unsigned chunk_shift_;
  const verbs::MemoryAccess access_;
  std::vector<std::optional<verbs::MemoryRegion>> made_;  // by region
};

}  // namespace

Registration register_regions(const std::shared_ptr<const verbs::Device>& device,
                              const kv::Layout& layout, unsigned chunk_shift,
                              verbs::MemoryAccess access) {
  return Registrar(device, layout, chunk_shift, access).run();
}

}  // namespace rdma_kv::transport::rdma
