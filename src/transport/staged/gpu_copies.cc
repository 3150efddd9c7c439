#include "transport/staged/gpu_copies.h"

#include "cuda/copy_walk.h"

namespace rdma_kv::transport::staged {

GpuCopies::GpuCopies(std::shared_ptr<const cuda::CopyKernel> kernel, const kv::Layout& layout,
                     const kv::Mapping& mapping, Side side)
    : side_(side),
      bases_(kernel->context(), layout.region_count() * sizeof(std::uint64_t)),
      queue_(std::move(kernel)) {
  auto* const bases = static_cast<unsigned long long*>(bases_.data());
  const bool is_prefill = side == Side::kPrefill;
  for (std::uint32_t i = 0; i < layout.region_count(); ++i) {
    const kv::Walk& walk = mapping.walk(i % mapping.tensors());
    bases[i] = layout.base(i) + (is_prefill ? walk.src_offset : walk.dst_offset);
    bits_[i % mapping.tensors()] |= bases[i];
  }
  const auto* const table = reinterpret_cast<const unsigned long long*>(bases_.on_device());
  (is_prefill ? job_.src_bases : job_.dst_bases) = table;
  job_.tensor_count = mapping.tensors();
  for (std::uint32_t t = 0; t < mapping.tensors(); ++t) {
    const kv::Walk& walk = mapping.walk(t);
    job_.walks[t].bytes = walk.bytes;
    job_.walks[t].src_stride = is_prefill ? walk.src_stride : walk.bytes;
    job_.walks[t].dst_stride = is_prefill ? walk.bytes : walk.dst_stride;
  }
}

cuda::Status GpuCopies::start(cuda::Slot& slot, cuda::DevicePointer payload, const Packing& packing,
                              kv::LayerRange layers, std::span<const kv::Run> runs,
                              std::uint64_t first, std::uint64_t count) noexcept {
  cuda::CopyJob job = job_;
  const bool is_prefill = side_ == Side::kPrefill;
  (is_prefill ? job.dst_start : job.src_start) = payload;
  job.layer_bytes = packing.layer_bytes;
  job.first_layer = layers.first;
  job.layer_count = layers.count;
  for (unsigned t = 0; t < job.tensor_count; ++t) {
    cuda::CopyWalk& walk = job.walks[t];
    (is_prefill ? walk.dst_packed : walk.src_packed) = packing.tensor_at[t];
    cuda::cut(walk, bits_[t] | payload | packing.layer_bytes);
  }
  return queue_.launch(slot, job, runs, first, count);
}

}  // namespace rdma_kv::transport::staged
