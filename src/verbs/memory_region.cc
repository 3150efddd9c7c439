#include "verbs/memory_region.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

namespace rdma_kv::verbs {
namespace {

std::string memlock_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return "unknown";
  if (limit.rlim_cur == RLIM_INFINITY) return "unlimited";
  return join(limit.rlim_cur / 1024, " KiB");
}

std::string remedy(int err, const kv::Region& region) {
  if (region.device != kv::kHostDevice) {
    return "is nvidia-peermem loaded (modprobe nvidia-peermem)?";
  }
  if (err == ENOMEM || err == EPERM) {
    return join("pinned memory is limited to ", memlock_limit(),
                "; raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit, "
                "--ulimit memlock=-1 for a container");
  }
  if (err == EFAULT) return "is all of it mapped and writable in this process?";
  return "the kernel's log may tell more (dmesg)";
}

// Relaxed ordering is an optional flag: it needs the newer call, which drops it quietly where the
// NIC has no such thing.
ibv_mr* register_memory(ibv_pd* pd, std::uint64_t base, std::uint64_t bytes, MemoryAccess access) {
  int flags = IBV_ACCESS_LOCAL_WRITE;
  if (access.remote_write) flags |= IBV_ACCESS_REMOTE_WRITE;
  if (access.remote_read) flags |= IBV_ACCESS_REMOTE_READ;
  auto* const data = reinterpret_cast<void*>(base);
  if (access.relaxed_ordering && lib().reg_mr_iova2 != nullptr) {
    return lib().reg_mr_iova2(pd, data, bytes, base,
                              static_cast<unsigned>(flags) | IBV_ACCESS_RELAXED_ORDERING);
  }
  return lib().reg_mr(pd, data, bytes, flags);
}

}  // namespace

MemoryRegion::MemoryRegion(const std::shared_ptr<const Device>& device, const kv::Region& region,
                           unsigned chunk_shift, MemoryAccess access)
    : device_(device), bytes_(region.bytes) {
  const std::uint64_t chunk_bytes = std::uint64_t{1} << chunk_shift;
  for (std::uint64_t offset = 0; offset < region.bytes; offset += chunk_bytes) {
    const std::uint64_t bytes = std::min(chunk_bytes, region.bytes - offset);
    chunks_.emplace_back(register_memory(device->pd(), region.base + offset, bytes, access));
    if (chunks_.back()) continue;
    const int err = errno;
    throw Error(Errc::kRegistration,
                join("ibv_reg_mr: ", reason(err), ", ", bytes, " bytes of ",
                     region.device == kv::kHostDevice ? "host" : "CUDA device", " memory at 0x",
                     Hex{region.base + offset}, " on ", device->nic(), "; ", remedy(err, region)));
  }
}

std::vector<std::uint32_t> MemoryRegion::lkeys() const {
  std::vector<std::uint32_t> out;
  for (const UniqueMr& chunk : chunks_) out.push_back(chunk->lkey);
  return out;
}

std::vector<std::uint32_t> MemoryRegion::rkeys() const {
  std::vector<std::uint32_t> out;
  for (const UniqueMr& chunk : chunks_) out.push_back(chunk->rkey);
  return out;
}

}  // namespace rdma_kv::verbs
