// Memory of another process: through handles of whole allocations, and through descriptors.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "fake_cuda/memory.h"

namespace fake {
namespace {

constexpr char kMagic[8] = {'F', 'A', 'K', 'E', 'I', 'P', 'C', '1'};

// What a handle says. The inode tells one life of a descriptor's number from the next.
struct Contents {
  char magic[8];
  pid_t pid;
  int descriptor;
  ino_t identity;
  std::size_t bytes;
};
static_assert(sizeof(Contents) <= sizeof(IpcHandle));

// By way of /proc, which asks for the same permission as pidfd_getfd but also works where Yama
// restricts that.
std::shared_ptr<File> open_file(const Contents& contents) {
  const std::string path =
      "/proc/" + std::to_string(contents.pid) + "/fd/" + std::to_string(contents.descriptor);
  const int opened = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (opened < 0) return nullptr;
  auto file = File::adopt(opened);
  return file != nullptr && file->identity() == contents.identity ? file : nullptr;
}

}  // namespace
}  // namespace fake

using namespace fake;

EXPORTED Status cuIpcGetMemHandle(IpcHandle* out, DevicePointer address) {
  ENTER("cuIpcGetMemHandle");
  const std::lock_guard lock(world());
  const auto found = ranges().find(address);
  if (out == nullptr || found == ranges().end() || found->second.kind != Kind::kDevice) {
    return kCuInvalidValue;
  }
  Contents contents{};
  std::memcpy(contents.magic, kMagic, sizeof kMagic);
  contents.pid = ::getpid();
  contents.descriptor = found->second.file->descriptor();
  contents.identity = found->second.file->identity();
  contents.bytes = found->second.bytes;
  *out = IpcHandle{};
  std::memcpy(out, &contents, sizeof contents);
  return kSuccess;
}

// One that is open already is counted, and found at the address that it has.
EXPORTED Status cuIpcOpenMemHandle_v2(DevicePointer* out, IpcHandle handle, unsigned flags) {
  ENTER("cuIpcOpenMemHandle_v2");
  const std::lock_guard lock(world());
  Contents contents{};
  std::memcpy(&contents, &handle, sizeof contents);
  if (out == nullptr || flags != kIpcLazyPeerAccess) return kCuInvalidValue;
  if (std::memcmp(contents.magic, kMagic, sizeof kMagic) != 0) return kCuInvalidValue;
  const RawContext context = current_context();
  if (!is_alive(context) || contents.pid == ::getpid()) return kCuInvalidContext;
  for (auto& [address, range] : ranges()) {
    if (range.kind != Kind::kImported || range.file->identity() != contents.identity) continue;
    if (range.context != context) continue;
    ++range.holders;
    *out = address;
    return kSuccess;
  }
  const auto file = open_file(contents);
  if (file == nullptr) return kCuMapFailed;  // freed, or its process is gone
  const DeviceNumber device = file->device();
  const bool is_reachable =
      device == context->device || number_from_environment("RDMA_KV_FAKE_PEERS", 1) != 0;
  if (device >= device_count() || !is_reachable) return 217;  // PEER_ACCESS_UNSUPPORTED
  const DevicePointer address = take_addresses(file->bytes());
  if (address == 0 || !map_file(address, file->bytes(), *file, true)) return kCuMapFailed;
  ranges()[address] = {.kind = Kind::kImported,
                       .bytes = contents.bytes,
                       .device = device,
                       .context = context,
                       .file = file};
  *out = address;
  return kSuccess;
}

EXPORTED Status cuIpcCloseMemHandle(DevicePointer address) {
  ENTER("cuIpcCloseMemHandle");
  RawContext context = nullptr;
  {
    const std::lock_guard lock(world());
    const auto found = ranges().find(address);
    if (found == ranges().end() || found->second.kind != Kind::kImported) return kCuInvalidValue;
    context = found->second.context;
  }
  wait_for_all(context);
  const std::lock_guard lock(world());
  const auto found = ranges().find(address);
  if (found == ranges().end()) return kCuInvalidValue;
  if (--found->second.holders > 0) return kSuccess;
  unmap(address, found->second.file->bytes());
  ranges().erase(found);
  return kSuccess;
}

// RDMA_KV_FAKE_DMABUF=1: a memfd stands for the dmabuf, with the offset of the address lost.
EXPORTED Status cuMemGetHandleForAddressRange(void* out, DevicePointer address, std::size_t bytes,
                                              int type, unsigned long long) {
  ENTER("cuMemGetHandleForAddressRange");
  const std::lock_guard lock(world());
  if (out == nullptr || type != kRangeHandleDmaBufFd) return kCuInvalidValue;
  if (number_from_environment("RDMA_KV_FAKE_DMABUF", 0) == 0) return kCuNotSupported;
  if (address % kPage != 0 || bytes % kPage != 0 || bytes == 0) return kCuInvalidValue;
  const auto found = range_at(address);
  if (found == ranges().end() || found->second.file == nullptr) return kCuInvalidValue;
  if (address + bytes > found->first + round_up(found->second.bytes, kPage)) return kCuInvalidValue;
  const int copy = ::fcntl(found->second.file->descriptor(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return kCuOutOfMemory;
  *static_cast<int*>(out) = copy;
  return kSuccess;
}
