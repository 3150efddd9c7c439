#include "kv/geometry.h"

#include "base/error.h"

namespace rdma_kv::kv {
namespace {

void require(bool holds, const std::string& otherwise) {
  if (!holds) throw Error(Errc::kValue, otherwise);
}

void check_tensor(const TensorSpec& tensor) {
  const auto name = name_of(tensor.kind);
  require(tensor.block_bytes > 0, join("block bytes of ", name, " is 0; a block must hold bytes"));
  require(tensor.block_bytes <= kMostBlockBytes,
          join("block bytes of ", name, " is ", tensor.block_bytes, "; at most ", kMostBlockBytes));
  require(tensor.stride_bytes >= tensor.block_bytes,
          join("block stride of ", name, " is ", tensor.stride_bytes, " bytes, smaller than its ",
               tensor.block_bytes, " block bytes; blocks would overlap"));
  require(
      tensor.stride_bytes <= kMostBlockBytes,
      join("block stride of ", name, " is ", tensor.stride_bytes, "; at most ", kMostBlockBytes));
}

}  // namespace

std::string_view name_of(TensorKind kind) noexcept {
  switch (kind) {
    case TensorKind::kKey:
      return "key";
    case TensorKind::kValue:
      return "value";
    case TensorKind::kKeyScale:
      return "key scale";
    case TensorKind::kValueScale:
      return "value scale";
  }
  return "unknown tensor";
}

void Geometry::check() const {
  require(layers > 0 && layers <= kMostLayers,
          join("layers is ", layers, "; must be 1..", kMostLayers));
  require(block_count > 0 && block_count <= kMostBlocks,
          join("block_number is ", block_count, "; must be 1..", kMostBlocks));
  require(!tensors.empty() && tensors.size() <= kMostTensors,
          join(tensors.size(), " tensors a layer; must be 1..", kMostTensors));
  require(tensors.front().kind == TensorKind::kKey, "the first tensor of a layer must be the key");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    check_tensor(tensors[i]);
    require(
        i == 0 || tensors[i - 1].kind < tensors[i].kind,
        "tensors of a layer must be in the order key, value, key scale, value scale, once each");
  }
  require(tp_size <= kMostTpSize, join("tp_size is ", tp_size, "; at most ", kMostTpSize));
  require(tp_size == 0 || tp_rank < tp_size,
          join("tp_rank is ", tp_rank, "; must be 0..", tp_size == 0 ? 0 : tp_size - 1,
               " with tp_size ", tp_size));
}

}  // namespace rdma_kv::kv
