#include "fake_cuda/memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace fake {
namespace {

constexpr std::size_t kReserved = std::size_t{1} << 40;
const std::string kName = "fake_gpu_";

void* pointer(DevicePointer address) { return reinterpret_cast<void*>(address); }

[[noreturn]] void die(const char* what, DevicePointer first, std::size_t bytes, const char* why) {
  std::fprintf(stderr, "FAKE CUDA driver: a kernel touches %s, %zu bytes at %#llx: %s\n", what,
               bytes, static_cast<unsigned long long>(first), why);
  std::abort();
}

bool may_touch(RawContext context, const Range& range) {
  switch (range.kind) {
    case Kind::kHost:
    case Kind::kImported:  // opening it made it reachable for the context that did
      return true;
    case Kind::kMapped:
      return range.users.contains(context->device);
    case Kind::kDevice:
      return range.device == context->device || context->peers.contains(context_of(range.device));
  }
  return false;
}

}  // namespace

std::shared_ptr<File> File::make(DeviceNumber device, std::size_t bytes) {
  const int made = ::memfd_create((kName + std::to_string(device)).c_str(), MFD_CLOEXEC);
  if (made < 0) return nullptr;
  if (::ftruncate(made, static_cast<off_t>(bytes)) != 0) {
    ::close(made);
    return nullptr;
  }
  return adopt(made);
}

std::shared_ptr<File> File::adopt(int descriptor) {
  char name[64] = "";
  struct stat status{};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const std::string prefix = "/memfd:" + kName;
  if (::readlink(link.c_str(), name, sizeof name - 1) < 0 ||
      std::string(name).rfind(prefix, 0) != 0 || ::fstat(descriptor, &status) != 0) {
    ::close(descriptor);
    return nullptr;
  }
  const DeviceNumber device = std::atoi(name + prefix.size());
  return std::shared_ptr<File>(
      new File(descriptor, device, static_cast<std::size_t>(status.st_size), status.st_ino));
}

File::~File() { ::close(descriptor_); }

std::map<DevicePointer, Range>& ranges() {
  static auto& all = *new std::map<DevicePointer, Range>;
  return all;
}

std::map<DevicePointer, Range>::iterator range_at(DevicePointer address) {
  auto found = ranges().upper_bound(address);
  if (found == ranges().begin()) return ranges().end();
  --found;
  return address - found->first < found->second.bytes ? found : ranges().end();
}

DevicePointer take_addresses(std::size_t bytes, std::size_t alignment) {
  static void* const start =
      ::mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  static std::size_t next = 0;
  if (start == MAP_FAILED) return 0;
  const auto base = reinterpret_cast<DevicePointer>(start);
  const DevicePointer taken = round_up(base + next, alignment);
  const std::size_t end = taken - base + round_up(bytes, kPage) + kPage;
  if (end > kReserved || end < bytes) return 0;
  next = end;
  return taken;
}

bool map_file(DevicePointer address, std::size_t bytes, const File& file, bool is_usable) {
  void* const made = ::mmap(pointer(address), bytes, is_usable ? PROT_READ | PROT_WRITE : PROT_NONE,
                            MAP_SHARED | MAP_FIXED, file.descriptor(), 0);
  // As the real one's: a forked child has none of it.
  return made != MAP_FAILED && ::madvise(made, bytes, MADV_DONTFORK) == 0;
}

void unmap(DevicePointer address, std::size_t bytes) {
  ::mmap(pointer(address), bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void forget_memory(RawContext context) {
  for (auto at = ranges().begin(); at != ranges().end();) {
    if (at->second.context != context) {
      ++at;
      continue;
    }
    unmap(at->first, round_up(at->second.bytes, kPage));
    at = ranges().erase(at);
  }
}

void require_reachable(RawContext context, DevicePointer first, std::size_t bytes,
                       const char* what) {
  for (DevicePointer at = first; at < first + bytes;) {
    const auto range = range_at(at);
    if (range == ranges().end()) die(what, first, bytes, "not (all) memory of the driver");
    if (!may_touch(context, range->second)) die(what, first, bytes, "no access to that device");
    at = range->first + range->second.bytes;
  }
}

}  // namespace fake
