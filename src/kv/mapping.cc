#include "kv/mapping.h"

namespace rdma_kv::kv {
namespace {

std::vector<std::uint64_t> bases_of(const Layout& layout) {
  std::vector<std::uint64_t> bases(layout.region_count());
  for (std::uint32_t i = 0; i < layout.region_count(); ++i) bases[i] = layout.base(i);
  return bases;
}

}  // namespace

Mapping::Mapping(const Geometry& prefill, const Geometry& decode)
    : layers_(prefill.layers),
      src_blocks_(prefill.block_count),
      dst_blocks_(decode.block_count),
      src_bases_(prefill.layers * prefill.tensors.size(), 0),
      dst_bases_(decode.layers * decode.tensors.size(), 0) {
  const auto slices = agree(prefill, decode);
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const auto& slice = slices[i];
    const std::uint64_t src_stride = prefill.tensors[i].stride_bytes;
    const std::uint64_t dst_stride = decode.tensors[i].stride_bytes;
    walks_.push_back({src_stride, dst_stride, slice.src_offset, slice.dst_offset, slice.bytes,
                      slice.bytes == src_stride && slice.bytes == dst_stride});
    bytes_per_layer_ += slice.bytes;
  }
}

Mapping Mapping::between(const Layout& prefill, const Layout& decode) {
  Mapping mapping(prefill.geometry(), decode.geometry());
  mapping.src_bases_ = bases_of(prefill);
  mapping.dst_bases_ = bases_of(decode);
  return mapping;
}

Mapping Mapping::from_prefill(const Layout& prefill, const Geometry& decode) {
  Mapping mapping(prefill.geometry(), decode);
  mapping.src_bases_ = bases_of(prefill);
  return mapping;
}

Mapping Mapping::into_decode(const Geometry& prefill, const Layout& decode) {
  Mapping mapping(prefill, decode.geometry());
  mapping.dst_bases_ = bases_of(decode);
  return mapping;
}

}  // namespace rdma_kv::kv
