#include "verbs/memory_region.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "verbs/peer_memory.h"

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
    const std::string module = peer_memory_module();
    if (module.empty()) return "is nvidia-peermem loaded (modprobe nvidia-peermem)?";
    return join("the module ", module, " is loaded; the kernel's log may tell more (dmesg)");
  }
  if (err == ENOMEM || err == EPERM) {
    return join("pinned memory is limited to ", memlock_limit(),
                "; raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit, "
                "--ulimit memlock=-1 for a container");
  }
  if (err == EFAULT) return "is all of it mapped and writable in this process?";
  return "the kernel's log may tell more (dmesg)";
}

const char* remedy_of_dma_buf(int err) {
  if (err == EOPNOTSUPP || err == ENOSYS) {
    return "the NIC's driver takes none; Linux 5.12 or newer is needed, and a NIC such as mlx5's";
  }
  return "the kernel's log may tell more (dmesg)";
}

int flags_of(MemoryAccess access) {
  int flags = IBV_ACCESS_LOCAL_WRITE;
  if (access.remote_write) flags |= IBV_ACCESS_REMOTE_WRITE;
  if (access.remote_read) flags |= IBV_ACCESS_REMOTE_READ;
  return flags;
}

// Relaxed ordering is an optional flag: it needs the newer call, which drops it quietly where the
// NIC has no such thing.
ibv_mr* register_memory(ibv_pd* pd, std::uint64_t base, std::uint64_t bytes, MemoryAccess access) {
  const int flags = flags_of(access);
  auto* const data = reinterpret_cast<void*>(base);
  if (access.relaxed_ordering && lib().reg_mr_iova2 != nullptr) {
    return lib().reg_mr_iova2(pd, data, bytes, base,
                              static_cast<unsigned>(flags) | IBV_ACCESS_RELAXED_ORDERING);
  }
  return lib().reg_mr(pd, data, bytes, flags);
}

// A kernel that knows dma-bufs knows relaxed ordering, and drops it by itself.
ibv_mr* register_dma_buf(ibv_pd* pd, const DmaBufPlace& place, std::uint64_t base,
                         std::uint64_t bytes, MemoryAccess access) {
  const int flags = flags_of(access) | (access.relaxed_ordering ? IBV_ACCESS_RELAXED_ORDERING : 0);
  return lib().reg_dmabuf_mr(pd, place.offset, bytes, base, place.fd, flags);
}

[[noreturn]] void refuse(const char* call, int err, const kv::Region& chunk, const Device& device,
                         const std::string& remedy) {
  throw Error(Errc::kRegistration,
              join(call, ": ", reason(err), ", ", chunk.bytes, " bytes of ",
                   chunk.device == kv::kHostDevice ? "host" : "CUDA device", " memory at 0x",
                   Hex{chunk.base}, " on ", device.nic(), "; ", remedy));
}

// Calls `take` with each chunk of a region, in the order of addresses.
template <class Take>
void cut(const kv::Region& region, unsigned chunk_shift, Take take) {
  const std::uint64_t chunk_bytes = std::uint64_t{1} << chunk_shift;
  for (std::uint64_t offset = 0; offset < region.bytes; offset += chunk_bytes) {
    const std::uint64_t bytes = std::min(chunk_bytes, region.bytes - offset);
    take(kv::Region{region.base + offset, bytes, region.device}, offset);
  }
}

}  // namespace

MemoryRegion::MemoryRegion(const std::shared_ptr<const Device>& device, const kv::Region& region,
                           unsigned chunk_shift, MemoryAccess access)
    : device_(device), bytes_(region.bytes) {
  cut(region, chunk_shift, [&](const kv::Region& chunk, std::uint64_t) {
    chunks_.emplace_back(register_memory(device->pd(), chunk.base, chunk.bytes, access));
    if (chunks_.back()) return;
    const int err = errno;
    refuse("ibv_reg_mr", err, chunk, *device, remedy(err, region));
  });
}

MemoryRegion::MemoryRegion(const std::shared_ptr<const Device>& device, const kv::Region& region,
                           unsigned chunk_shift, MemoryAccess access, const DmaBufPlace& place)
    : device_(device), bytes_(region.bytes) {
  if (lib().reg_dmabuf_mr == nullptr) {
    throw Error(Errc::kRegistration,
                "libibverbs has no ibv_reg_dmabuf_mr; one of rdma-core 34 or newer is needed");
  }
  cut(region, chunk_shift, [&](const kv::Region& chunk, std::uint64_t offset) {
    const DmaBufPlace there{place.fd, place.offset + offset};
    chunks_.emplace_back(register_dma_buf(device->pd(), there, chunk.base, chunk.bytes, access));
    if (chunks_.back()) return;
    const int err = errno;
    refuse("ibv_reg_dmabuf_mr", err, chunk, *device, remedy_of_dma_buf(err));
  });
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
