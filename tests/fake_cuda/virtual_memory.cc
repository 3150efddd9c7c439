// Virtual memory management: addresses, memory, and which memory lies at which addresses.
#include <fcntl.h>
#include <sys/mman.h>

#include "fake_cuda/memory.h"

namespace fake {
namespace {

// The start of CUmemAllocationProp.
struct Properties {
  int type;  // 1: pinned
  int handle_types;
  MemoryLocation location;
};

struct Memory {
  std::shared_ptr<File> file;
  bool is_exportable = false;
  int holders = 1;
};

std::map<AllocationHandle, Memory>& memories() {
  static auto& all = *new std::map<AllocationHandle, Memory>;
  return all;
}

std::map<DevicePointer, std::size_t>& reservations() {
  static auto& all = *new std::map<DevicePointer, std::size_t>;
  return all;
}

AllocationHandle keep(std::shared_ptr<File> file, bool is_exportable) {
  static AllocationHandle next = 0xFA0000;
  memories()[++next] = {std::move(file), is_exportable, 1};
  return next;
}

bool is_even(DevicePointer address, std::size_t bytes) {
  return address % kGranularity == 0 && bytes % kGranularity == 0 && bytes > 0;
}

bool is_reserved(DevicePointer address, std::size_t bytes) {
  auto found = reservations().upper_bound(address);
  if (found == reservations().begin()) return false;
  --found;
  return address - found->first + bytes <= found->second;
}

bool is_free(DevicePointer address, std::size_t bytes) {
  const auto next = ranges().lower_bound(address);
  return range_at(address) == ranges().end() &&
         (next == ranges().end() || next->first >= address + bytes);
}

// Calls `visit` with each mapping of a run; false, and no call, where it is not whole mappings.
template <class Visit>
bool each_mapping(DevicePointer address, std::size_t bytes, Visit visit) {
  DevicePointer at = address;
  while (at < address + bytes) {
    const auto found = ranges().find(at);
    if (found == ranges().end() || found->second.kind != Kind::kMapped) return false;
    at += found->second.bytes;
  }
  if (at != address + bytes) return false;
  for (at = address; at < address + bytes;) {
    const auto found = ranges().find(at);
    at += found->second.bytes;
    visit(found);
  }
  return true;
}

}  // namespace
}  // namespace fake

using namespace fake;

EXPORTED Status cuMemGetAllocationGranularity(std::size_t* out, const void* properties, int) {
  ENTER("cuMemGetAllocationGranularity");
  if (out == nullptr || properties == nullptr) return kCuInvalidValue;
  *out = kGranularity;
  return kSuccess;
}

EXPORTED Status cuMemCreate(AllocationHandle* out, std::size_t bytes, const void* properties,
                            unsigned long long flags) {
  ENTER("cuMemCreate");
  const std::lock_guard lock(world());
  if (out == nullptr || properties == nullptr || flags != 0) return kCuInvalidValue;
  const auto& asked = *static_cast<const Properties*>(properties);
  if (asked.type != 1 || asked.location.type != kLocationDevice) return kCuInvalidValue;
  if (asked.location.id < 0 || asked.location.id >= device_count()) return kCuInvalidDevice;
  if (bytes == 0 || bytes % kGranularity != 0) return kCuInvalidValue;
  auto file = File::make(asked.location.id, bytes);
  if (file == nullptr) return kCuOutOfMemory;
  *out = keep(std::move(file), (asked.handle_types & kHandlePosixFd) != 0);
  return kSuccess;
}

// What is mapped stays until it is unmapped.
EXPORTED Status cuMemRelease(AllocationHandle handle) {
  ENTER("cuMemRelease");
  const std::lock_guard lock(world());
  const auto found = memories().find(handle);
  if (found == memories().end() || found->second.holders == 0) return kCuInvalidValue;
  --found->second.holders;
  if (found->second.holders > 0) return kSuccess;
  for (const auto& [address, range] : ranges()) {
    if (range.kind == Kind::kMapped && range.handle == handle) return kSuccess;
  }
  memories().erase(found);
  return kSuccess;
}

EXPORTED Status cuMemRetainAllocationHandle(AllocationHandle* out, void* address) {
  ENTER("cuMemRetainAllocationHandle");
  const std::lock_guard lock(world());
  const auto found = range_at(reinterpret_cast<DevicePointer>(address));
  if (out == nullptr || found == ranges().end() || found->second.kind != Kind::kMapped) {
    return kCuInvalidValue;
  }
  ++memories()[found->second.handle].holders;
  *out = found->second.handle;
  return kSuccess;
}

EXPORTED Status cuMemExportToShareableHandle(void* out, AllocationHandle handle, int type,
                                             unsigned long long flags) {
  ENTER("cuMemExportToShareableHandle");
  const std::lock_guard lock(world());
  const auto found = memories().find(handle);
  if (out == nullptr || found == memories().end() || flags != 0) return kCuInvalidValue;
  if (type != kHandlePosixFd || !found->second.is_exportable) return kCuInvalidValue;
  const int copy = ::fcntl(found->second.file->descriptor(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return kCuOutOfMemory;
  *static_cast<int*>(out) = copy;
  return kSuccess;
}

// The descriptor stays the caller's.
EXPORTED Status cuMemImportFromShareableHandle(AllocationHandle* out, void* os_handle, int type) {
  ENTER("cuMemImportFromShareableHandle");
  const std::lock_guard lock(world());
  if (out == nullptr || type != kHandlePosixFd) return kCuInvalidValue;
  const int descriptor = static_cast<int>(reinterpret_cast<std::intptr_t>(os_handle));
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return kCuInvalidValue;
  auto file = File::adopt(copy);
  if (file == nullptr || file->device() >= device_count()) return kCuInvalidValue;
  *out = keep(std::move(file), true);
  return kSuccess;
}

EXPORTED Status cuMemAddressReserve(DevicePointer* out, std::size_t bytes, std::size_t alignment,
                                    DevicePointer, unsigned long long flags) {
  ENTER("cuMemAddressReserve");
  const std::lock_guard lock(world());
  if (out == nullptr || flags != 0 || bytes == 0 || bytes % kGranularity != 0)
    return kCuInvalidValue;
  if ((alignment & (alignment - 1)) != 0) return kCuInvalidValue;
  const DevicePointer taken = take_addresses(bytes, std::max(alignment, kGranularity));
  if (taken == 0) return kCuOutOfMemory;
  reservations()[taken] = bytes;
  *out = taken;
  return kSuccess;
}

EXPORTED Status cuMemAddressFree(DevicePointer address, std::size_t bytes) {
  ENTER("cuMemAddressFree");
  const std::lock_guard lock(world());
  const auto found = reservations().find(address);
  if (found == reservations().end() || found->second != bytes) return kCuInvalidValue;
  if (!is_free(address, bytes)) return kCuInvalidValue;
  reservations().erase(found);
  return kSuccess;
}

EXPORTED Status cuMemMap(DevicePointer address, std::size_t bytes, std::size_t offset,
                         AllocationHandle handle, unsigned long long flags) {
  ENTER("cuMemMap");
  const std::lock_guard lock(world());
  const auto found = memories().find(handle);
  if (found == memories().end() || flags != 0 || offset != 0) return kCuInvalidValue;
  if (!is_even(address, bytes) || bytes > found->second.file->bytes()) return kCuInvalidValue;
  if (!is_reserved(address, bytes) || !is_free(address, bytes)) return kCuInvalidValue;
  if (!map_file(address, bytes, *found->second.file, false)) return kCuMapFailed;
  ranges()[address] = {.kind = Kind::kMapped,
                       .bytes = bytes,
                       .device = found->second.file->device(),
                       .file = found->second.file,
                       .is_exportable = found->second.is_exportable,
                       .users = {},
                       .handle = handle};
  return kSuccess;
}

// Does not wait for what is on its way: nor does the real one say that it would.
EXPORTED Status cuMemUnmap(DevicePointer address, std::size_t bytes) {
  ENTER("cuMemUnmap");
  const std::lock_guard lock(world());
  const bool is_whole = each_mapping(address, bytes, [](auto mapping) {
    const AllocationHandle handle = mapping->second.handle;
    unmap(mapping->first, mapping->second.bytes);
    ranges().erase(mapping);
    if (const auto memory = memories().find(handle);
        memory != memories().end() && memory->second.holders == 0) {
      memories().erase(memory);
    }
  });
  return is_whole ? kSuccess : kCuInvalidValue;
}

EXPORTED Status cuMemSetAccess(DevicePointer address, std::size_t bytes,
                               const AccessDescription* descriptions, std::size_t count) {
  ENTER("cuMemSetAccess");
  const std::lock_guard lock(world());
  if (descriptions == nullptr || count == 0) return kCuInvalidValue;
  std::set<DeviceNumber> users;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [location, flags] = descriptions[i];
    if (location.type != kLocationDevice || flags != kAccessReadWrite) return kCuInvalidValue;
    if (location.id < 0 || location.id >= device_count()) return kCuInvalidDevice;
    users.insert(location.id);
  }
  const bool is_whole = each_mapping(address, bytes, [&](auto mapping) {
    ::mprotect(reinterpret_cast<void*>(mapping->first), mapping->second.bytes,
               PROT_READ | PROT_WRITE);
    mapping->second.users.insert(users.begin(), users.end());
  });
  return is_whole ? kSuccess : kCuInvalidValue;
}
