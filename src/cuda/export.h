// Device memory of this process, put so that another process can map it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "cuda/context.h"
#include "kv/layout.h"

namespace rdma_kv::cuda {

// One allocation, whole, as another process opens it: by a handle of the older interface
// (cudaMalloc and torch's usual segments) or by a descriptor of this process (virtual memory, as
// torch's expandable segments are).
struct Piece {
  std::uint64_t bytes = 0;
  std::vector<std::uint8_t> handle;  // sizeof(IpcHandle), or empty
  int descriptor = -1;
};

// Pieces that follow one another in the address space, from `base`.
struct Segment {
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
  std::vector<Piece> pieces;
};

// All that the regions of a layout lie in. Made once per communicator; the descriptors are open for
// as long as it lives.
class Exports {
 public:
  // Throws Error(kUnavailable) naming the address, what made the memory unshareable and the remedy.
  explicit Exports(const kv::Layout& layout);

  int device() const noexcept { return context_->ordinal(); }
  const Context& context() const noexcept { return *context_; }
  const std::vector<Segment>& segments() const noexcept { return segments_; }

 private:
  Piece describe(std::uint64_t address, std::uint64_t& base);

  std::shared_ptr<const Context> context_;
  std::vector<Segment> segments_;
  std::vector<UniqueFd> descriptors_;
};

// The one device that all regions of a layout are on. Throws Error(kUnavailable) when some are in
// host memory or on another device.
int only_device(const kv::Layout& layout);

}  // namespace rdma_kv::cuda
