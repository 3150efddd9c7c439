// Another process's device memory, mapped into this one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "cuda/export.h"

namespace rdma_kv::cuda {

// A duplicate of a descriptor of the exporting process. Throws Error(kUnavailable).
using TakeDescriptor = std::function<UniqueFd(int descriptor)>;

// Must go before the exporter frees the memory, and after every copy into it is done. Going may
// wait for the GPU. Immutable once made.
class Imports {
 public:
  // Maps all segments for one device of this process, whole or not at all.
  // Throws Error(kUnavailable) with what the driver said.
  Imports(std::shared_ptr<const Context> context, std::vector<Segment> segments,
          const TakeDescriptor& take);
  ~Imports();
  Imports(const Imports&) = delete;
  Imports& operator=(const Imports&) = delete;

  // Where the exporter's bytes [address, address + bytes) are in this process. Throws
  // Error(kUnavailable) when they do not lie in one segment.
  std::uint64_t translate(std::uint64_t address, std::uint64_t bytes) const;
  std::uint64_t bytes() const noexcept;

 private:
  struct Mapped {
    Segment segment;
    std::uint64_t here = 0;
    std::vector<std::uint64_t> mapped;  // bytes of each piece of virtual memory, in order
    bool is_whole = false;              // opened by a handle
  };

  void open(Mapped& mapped);
  void map(Mapped& mapped, const TakeDescriptor& take);
  void close(Mapped& mapped) noexcept;

  std::shared_ptr<const Context> context_;
  std::vector<Mapped> mapped_;
};

}  // namespace rdma_kv::cuda
