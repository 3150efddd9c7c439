#include "cache.h"

#include <sanitizer/asan_interface.h>

namespace fuzz {
namespace kv = rdma_kv::kv;

namespace {

constexpr kv::TensorKind kKinds[] = {kv::TensorKind::kKey, kv::TensorKind::kValue,
                                     kv::TensorKind::kKeyScale, kv::TensorKind::kValueScale};

// What the sanitizer can poison at least.
constexpr std::size_t kGrain = 8;

}  // namespace

std::uint64_t Shape::bytes_per_layer() const {
  std::uint64_t sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.bytes;
  return sum;
}

kv::Geometry Shape::prefill() const {
  kv::Geometry geometry{layers, prefill_blocks, {}, "", prefill_tp_size, prefill_tp_rank};
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    geometry.tensors.push_back({kKinds[i], tensors[i].prefill_bytes, tensors[i].prefill_stride});
  }
  return geometry;
}

kv::Geometry Shape::decode() const {
  kv::Geometry geometry{layers, decode_blocks, {}, "", decode_tp_size, decode_tp_rank};
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    geometry.tensors.push_back({kKinds[i], tensors[i].decode_bytes, tensors[i].decode_stride});
  }
  return geometry;
}

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {2, 8, 8, 1, 0, 1, 0, {{16, 16, 16, 16, 0, 0, 16}, {16, 16, 16, 16, 0, 0, 16}}},
      {2,
       9,
       5,
       1,
       0,
       1,
       0,
       {{12, 16, 12, 20, 0, 0, 12}, {12, 12, 12, 24, 0, 0, 12}, {3, 4, 3, 5, 0, 0, 3}}},
      // Prefill's second rank of two fills the second half of a decode block.
      {2, 6, 6, 2, 1, 1, 0, {{8, 8, 16, 24, 0, 8, 8}, {8, 16, 16, 16, 0, 8, 8}}},
      // And the other way round.
      {2, 6, 6, 1, 0, 2, 1, {{16, 16, 8, 8, 8, 0, 8}, {16, 24, 8, 16, 8, 0, 8}}},
      {3, 7, 7, 1, 0, 1, 0, {{40, 40, 40, 40, 0, 0, 40}}},
      // More extents than one system call takes.
      {3, 180, 180, 1, 0, 1, 0, {{1, 1, 1, 2, 0, 0, 1}, {1, 2, 1, 1, 0, 0, 1}}},
      // More bytes than the receiver's buffer.
      {1, 2, 2, 1, 0, 1, 0, {{17000, 17000, 17000, 17008, 0, 0, 17000}}},
  };
  return all;
}

Cache::Cache(const kv::Geometry& geometry, unsigned seed) : geometry_(geometry) {
  for (std::uint32_t layer = 0; layer < geometry.layers; ++layer) {
    for (const auto& tensor : geometry.tensors) {
      bytes_.push_back((geometry.block_count - 1) * tensor.stride_bytes + tensor.block_bytes);
      regions_.push_back(std::make_unique<std::uint8_t[]>(bytes_.back()));
      for (std::size_t i = 0; i < bytes_.back(); ++i) {
        seed = seed * 1664525 + 1013904223;
        regions_.back()[i] = static_cast<std::uint8_t>(seed >> 24);
      }
    }
  }
  poison(true);
}

Cache::~Cache() { poison(false); }

void Cache::poison(bool is_poisoned) {
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    const auto& tensor = geometry_.tensors[i % geometry_.tensors.size()];
    if (tensor.stride_bytes - tensor.block_bytes < kGrain) continue;
    if (!is_poisoned) {
      __asan_unpoison_memory_region(regions_[i].get(), bytes_[i]);
      continue;
    }
    const std::size_t gap = tensor.stride_bytes - tensor.block_bytes;
    for (std::uint64_t block = 0; block + 1 < geometry_.block_count; ++block) {
      const std::size_t at = block * tensor.stride_bytes + tensor.block_bytes;
      __asan_poison_memory_region(regions_[i].get() + at, gap);
    }
  }
}

kv::Layout Cache::layout() const {
  std::vector<std::uint64_t> bases;
  for (const auto& region : regions_) {
    bases.push_back(reinterpret_cast<std::uint64_t>(region.get()));
  }
  return {geometry_, bases, std::vector<int>(bases.size(), kv::kHostDevice)};
}

std::vector<std::uint8_t> Cache::content(std::size_t index) {
  poison(false);
  std::vector<std::uint8_t> copy(regions_[index].get(), regions_[index].get() + bytes_[index]);
  poison(true);
  return copy;
}

std::vector<std::vector<std::uint8_t>> Cache::contents() {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::size_t i = 0; i < regions_.size(); ++i) all.push_back(content(i));
  return all;
}

}  // namespace fuzz
