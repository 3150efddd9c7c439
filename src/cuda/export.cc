#include "cuda/export.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace rdma_kv::cuda {
namespace {

std::uint64_t attribute(std::uint64_t address, int which) {
  std::uint64_t value = 0;
  const Status status = api().pointer_get_attribute(&value, which, address);
  return status == kSuccess ? value : 0;
}

// Others of this process need descriptors too.
void check_descriptors(std::size_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || wanted <= limit.rlim_cur / 2) return;
  throw Error(Errc::kUnavailable,
              join("the cache lies in more than ", wanted - 1,
                   " pieces of virtual memory, each "
                   "of which needs a descriptor to be shared, and this process may have ",
                   limit.rlim_cur,
                   "; raise `ulimit -n`, or use cudaMalloc (torch: "
                   "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False)"));
}

}  // namespace

int only_device(const kv::Layout& layout) {
  const int device = layout.region(0).device;
  for (std::uint32_t i = 0; i < layout.region_count(); ++i) {
    const int other = layout.region(i).device;
    if (other == kv::kHostDevice) {
      throw Error(Errc::kUnavailable, device == kv::kHostDevice
                                          ? "the blocks are in host memory"
                                          : "some of the blocks are in host memory");
    }
    if (other != device) {
      throw Error(Errc::kUnavailable, join("the blocks are on more than one GPU: ", device, " and ",
                                           other, "; use one communicator for each"));
    }
  }
  return device;
}

Piece Exports::describe(std::uint64_t address, std::uint64_t& base) {
  Piece piece;
  if (attribute(address, kPointerIsLegacyIpcCapable) != 0) {
    std::size_t bytes = 0;
    check(api().mem_get_address_range(&base, &bytes, address), "cuMemGetAddressRange");
    IpcHandle handle{};
    check(api().ipc_get_mem_handle(&handle, base), "cuIpcGetMemHandle");
    piece.bytes = bytes;
    piece.handle.resize(sizeof handle);
    std::memcpy(piece.handle.data(), &handle, sizeof handle);
    return piece;
  }
  const std::uint64_t bytes = attribute(address, kPointerMappingBytes);
  if ((attribute(address, kPointerAllowedHandleTypes) & kHandlePosixFd) == 0 || bytes == 0) {
    throw Error(Errc::kUnavailable,
                join("the memory at 0x", Hex{address},
                     " cannot be shared between processes: it is of a pool (cudaMallocAsync) or "
                     "virtual memory that was made without an exportable handle; allocate it with "
                     "cudaMalloc (torch: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False, "
                     "backend:native)"));
  }
  base = attribute(address, kPointerMappingBase);
  AllocationHandle handle = 0;
  check(api().mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(address)),
        "cuMemRetainAllocationHandle");
  int descriptor = -1;
  const Status status =
      api().mem_export_to_shareable_handle(&descriptor, handle, kHandlePosixFd, 0);
  note(api().mem_release(handle), "cuMemRelease");
  check(status, "cuMemExportToShareableHandle");
  check_descriptors(descriptors_.size() + 1);
  descriptors_.emplace_back(descriptor);
  piece.bytes = bytes;
  piece.descriptor = descriptor;
  return piece;
}

Exports::Exports(const kv::Layout& layout) : context_(Context::of(only_device(layout))) {
  const Current current(*context_);
  std::map<std::uint64_t, Piece> pieces;  // by base
  const auto find = [&](std::uint64_t address) {
    const auto after = pieces.upper_bound(address);
    if (after != pieces.begin()) {
      const auto& [base, piece] = *std::prev(after);
      if (address - base < piece.bytes) return base + piece.bytes;
    }
    std::uint64_t base = 0;
    Piece piece = describe(address, base);
    const std::uint64_t end = base + piece.bytes;
    pieces.emplace(base, std::move(piece));
    return end;
  };
  for (std::uint32_t i = 0; i < layout.region_count(); ++i) {
    const kv::Region region = layout.region(i);
    const std::uint64_t end = region.base + region.bytes;
    for (std::uint64_t at = region.base; at < end;) at = find(at);
  }
  for (auto& [base, piece] : pieces) {
    const bool is_shared_whole = !piece.handle.empty();
    const bool goes_on = !segments_.empty() && !is_shared_whole &&
                         segments_.back().pieces.back().handle.empty() &&
                         segments_.back().base + segments_.back().bytes == base;
    if (!goes_on) segments_.push_back({base, 0, {}});
    segments_.back().bytes += piece.bytes;
    segments_.back().pieces.push_back(std::move(piece));
  }
}

}  // namespace rdma_kv::cuda
