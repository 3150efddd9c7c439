// All addresses that the driver knows, and the files behind them.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <map>
#include <memory>
#include <set>

#include "fake_cuda/context.h"

namespace fake {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kGranularity = 2 << 20;  // of virtual memory management

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Memory of a device: a memfd, which other processes can open. It lives as long as a process has
// it open or mapped.
class File {
 public:
  static std::shared_ptr<File> make(DeviceNumber device, std::size_t bytes);  // null: no memory
  // Takes the descriptor over. Null: it is none of ours.
  static std::shared_ptr<File> adopt(int descriptor);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor() const { return descriptor_; }
  DeviceNumber device() const { return device_; }
  std::size_t bytes() const { return bytes_; }
  ino_t identity() const { return identity_; }

 private:
  File(int descriptor, DeviceNumber device, std::size_t bytes, ino_t identity)
      : descriptor_(descriptor), device_(device), bytes_(bytes), identity_(identity) {}

  int descriptor_;
  DeviceNumber device_;
  std::size_t bytes_;
  ino_t identity_;
};

enum class Kind { kDevice, kHost, kImported, kMapped };

struct Range {
  Kind kind = Kind::kDevice;
  std::size_t bytes = 0;
  DeviceNumber device = 0;         // that has the memory; of host memory: that asked for it
  RawContext context = nullptr;    // that it goes away with; null: none
  std::shared_ptr<File> file{};    // null: host memory
  int holders = 1;                 // of kImported: how often it was opened
  bool is_exportable = false;      // of kMapped: as a descriptor
  std::set<DeviceNumber> users{};  // of kMapped: who was given access
  AllocationHandle handle = 0;     // of kMapped
};

// All with world() held. By first address.
std::map<DevicePointer, Range>& ranges();

// The range in which an address lies, or end().
std::map<DevicePointer, Range>::iterator range_at(DevicePointer address);

// Addresses that are used for nothing else, now or later, with a gap behind them: whoever goes on
// using freed memory, or runs over its end by more than a page, dies of it. 0: there are no more.
DevicePointer take_addresses(std::size_t bytes, std::size_t alignment = kGranularity);

bool map_file(DevicePointer address, std::size_t bytes, const File& file, bool is_usable);
void unmap(DevicePointer address, std::size_t bytes);

void forget_memory(RawContext context);

// Dies, and says why, unless kernels of the context may touch all of these bytes.
void require_reachable(RawContext context, DevicePointer first, std::size_t bytes,
                       const char* what);

}  // namespace fake
