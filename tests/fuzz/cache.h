// KV caches whose every byte is accounted for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kv/layout.h"

namespace fuzz {

// What two sides agreed on. The slices are written out here, not computed as the core does.
struct Shape {
  struct Tensor {
    std::uint64_t prefill_bytes, prefill_stride;
    std::uint64_t decode_bytes, decode_stride;
    std::uint64_t src_offset, dst_offset, bytes;  // of a block's slice
  };
  std::uint32_t layers;
  std::uint32_t prefill_blocks, decode_blocks;
  std::uint32_t prefill_tp_size, prefill_tp_rank, decode_tp_size, decode_tp_rank;
  std::vector<Tensor> tensors;

  std::uint64_t bytes_per_layer() const;
  rdma_kv::kv::Geometry prefill() const;
  rdma_kv::kv::Geometry decode() const;
};

// Dense, padded, both ways of tensor parallelism, key only, many small extents, large blocks.
const std::vector<Shape>& shapes();

// One side's regions. Each is an allocation of its own, so that the sanitizer guards both ends; the
// gaps between blocks are poisoned as far as it can express that.
class Cache {
 public:
  Cache(const rdma_kv::kv::Geometry& geometry, unsigned seed);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  rdma_kv::kv::Layout layout() const;
  std::size_t region_count() const { return regions_.size(); }
  std::uint8_t* region(std::size_t index) { return regions_[index].get(); }
  std::size_t bytes(std::size_t index) const { return bytes_[index]; }
  bool is_small() const { return bytes_.size() * bytes_[0] <= 2048; }
  // A copy of what a region holds, gaps included.
  std::vector<std::uint8_t> content(std::size_t index);
  std::vector<std::vector<std::uint8_t>> contents();  // of all

 private:
  void poison(bool is_poisoned);

  rdma_kv::kv::Geometry geometry_;
  std::vector<std::unique_ptr<std::uint8_t[]>> regions_;
  std::vector<std::size_t> bytes_;
};

}  // namespace fuzz
