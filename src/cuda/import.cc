#include "cuda/import.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace rdma_kv::cuda {

Imports::Imports(std::shared_ptr<const Context> context, std::vector<Segment> segments,
                 const TakeDescriptor& take)
    : context_(std::move(context)) {
  const Current current(*context_);
  mapped_.reserve(segments.size());
  try {
    for (Segment& segment : segments) {
      mapped_.push_back({std::move(segment), 0, {}, false});
      Mapped& mapped = mapped_.back();
      if (mapped.segment.pieces.size() == 1 && !mapped.segment.pieces.front().handle.empty()) {
        open(mapped);
      } else {
        map(mapped, take);
      }
    }
  } catch (...) {
    for (Mapped& mapped : mapped_) close(mapped);
    throw;
  }
}

Imports::~Imports() {
  const Current current(*context_);
  for (Mapped& mapped : mapped_) close(mapped);
}

void Imports::open(Mapped& mapped) {
  IpcHandle handle{};
  const auto& bytes = mapped.segment.pieces.front().handle;
  if (bytes.size() != sizeof handle) {
    throw Error(Errc::kUnavailable, join("a handle of device memory has ", sizeof handle,
                                         " bytes, this one ", bytes.size()));
  }
  std::memcpy(&handle, bytes.data(), sizeof handle);
  DevicePointer here = 0;
  if (const Status status = api().ipc_open_mem_handle(&here, handle, kIpcLazyPeerAccess)) {
    throw Error(Errc::kUnavailable,
                join("cuIpcOpenMemHandle: ", reason_of(status), ", for the peer's memory on ",
                     context_->name(),
                     "; can the two GPUs reach each other (nvidia-smi topo -p2p w), and do both "
                     "containers share the host's IPC namespace (--ipc=host)?"));
  }
  mapped.here = here;
  mapped.is_whole = true;
  // What the peer says of its size is not believed: a copy past the end would cost us our context.
  DevicePointer base = 0;
  std::size_t real = 0;
  check(api().mem_get_address_range(&base, &real, here), "cuMemGetAddressRange");
  if (base != here || real < mapped.segment.bytes) {
    throw Error(Errc::kUnavailable, join("the peer's memory has ", real, " bytes, not ",
                                         mapped.segment.bytes, " as it said"));
  }
}

void Imports::map(Mapped& mapped, const TakeDescriptor& take) {
  std::uint64_t total = 0;
  for (const Piece& piece : mapped.segment.pieces) {
    if (piece.descriptor < 0 || piece.bytes == 0 || piece.bytes > mapped.segment.bytes - total) {
      throw Error(Errc::kUnavailable, "the pieces of the peer's memory do not fit together");
    }
    total += piece.bytes;
  }
  if (total != mapped.segment.bytes) {
    throw Error(Errc::kUnavailable, "the pieces of the peer's memory do not fit together");
  }
  check(api().mem_address_reserve(&mapped.here, total, 0, 0, 0), "cuMemAddressReserve");
  std::uint64_t at = mapped.here;
  for (const Piece& piece : mapped.segment.pieces) {
    const UniqueFd descriptor = take(piece.descriptor);
    AllocationHandle handle = 0;
    check(api().mem_import_from_shareable_handle(
              &handle, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor.get())),
              kHandlePosixFd),
          "cuMemImportFromShareableHandle");
    const Status status = api().mem_map(at, piece.bytes, 0, handle, 0);
    note(api().mem_release(handle), "cuMemRelease");  // the mapping holds it
    check(status, "cuMemMap");
    mapped.mapped.push_back(piece.bytes);
    at += piece.bytes;
  }
  const AccessDescription access{{kLocationDevice, context_->ordinal()}, kAccessReadWrite};
  check(api().mem_set_access(mapped.here, total, &access, 1), "cuMemSetAccess");
}

void Imports::close(Mapped& mapped) noexcept {
  if (mapped.here == 0) return;
  if (mapped.is_whole) {
    note(opened_api().ipc_close_mem_handle(mapped.here), "cuIpcCloseMemHandle");
    return;
  }
  std::uint64_t at = mapped.here;
  for (const std::uint64_t bytes : mapped.mapped) {
    note(opened_api().mem_unmap(at, bytes), "cuMemUnmap");
    at += bytes;
  }
  note(opened_api().mem_address_free(mapped.here, mapped.segment.bytes), "cuMemAddressFree");
}

std::uint64_t Imports::translate(std::uint64_t address, std::uint64_t bytes) const {
  for (const Mapped& mapped : mapped_) {
    const std::uint64_t offset = address - mapped.segment.base;
    if (address < mapped.segment.base || offset >= mapped.segment.bytes) continue;
    if (bytes <= mapped.segment.bytes - offset) return mapped.here + offset;
  }
  throw Error(Errc::kUnavailable,
              join("the peer did not share its memory at 0x", Hex{address}, " (", bytes,
                   " bytes); do both sides run the same version?"));
}

std::uint64_t Imports::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const Mapped& mapped : mapped_) sum += mapped.segment.bytes;
  return sum;
}

}  // namespace rdma_kv::cuda
