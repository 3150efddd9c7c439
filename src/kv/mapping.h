// Two layouts joined: where block s of this side and block d of the other meet, per region.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/agreement.h"
#include "kv/layout.h"

namespace rdma_kv::kv {

// How one tensor's blocks are walked; all that the plan's inner loop needs.
struct Walk {
  std::uint64_t src_stride;
  std::uint64_t dst_stride;
  std::uint64_t src_offset;
  std::uint64_t dst_offset;
  std::uint64_t bytes;  // of one block's slice
  bool is_dense;        // neighbouring blocks touch on both sides: a run is one extent
};

// Immutable and self-contained, so one mapping may be shared by every thread and outlive both
// layouts. A side whose addresses are unknown here (a TCP sender does not need the receiver's, nor
// the other way round) is walked from base 0.
class Mapping {
 public:
  // Throws Error(kLayoutMismatch), see agree().
  static Mapping between(const Layout& prefill, const Layout& decode);
  static Mapping from_prefill(const Layout& prefill, const Geometry& decode);
  static Mapping into_decode(const Geometry& prefill, const Layout& decode);

  std::uint32_t layers() const noexcept { return layers_; }
  std::uint32_t tensors() const noexcept { return static_cast<std::uint32_t>(walks_.size()); }
  std::uint64_t src_blocks() const noexcept { return src_blocks_; }
  std::uint64_t dst_blocks() const noexcept { return dst_blocks_; }
  const Walk& walk(std::uint32_t tensor) const noexcept { return walks_[tensor]; }
  std::uint64_t src_base(std::uint32_t region) const noexcept { return src_bases_[region]; }
  std::uint64_t dst_base(std::uint32_t region) const noexcept { return dst_bases_[region]; }
  // Payload of one block over all tensors of one layer.
  std::uint64_t bytes_per_layer() const noexcept { return bytes_per_layer_; }

 private:
  Mapping(const Geometry& prefill, const Geometry& decode);

  std::uint32_t layers_;
  std::uint64_t src_blocks_;
  std::uint64_t dst_blocks_;
  std::uint64_t bytes_per_layer_ = 0;
  std::vector<Walk> walks_;
  std::vector<std::uint64_t> src_bases_;
  std::vector<std::uint64_t> dst_bases_;
};

}  // namespace rdma_kv::kv
