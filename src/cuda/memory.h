// Owners of what a context lends: memory and streams.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "cuda/context.h"

namespace rdma_kv::cuda {

// Page-locked host memory that every GPU of the process can read and write at its own address.
class PinnedMemory {
 public:
  PinnedMemory(std::shared_ptr<const Context> context, std::size_t bytes)
      : context_(std::move(context)), bytes_(bytes) {
    const Current current(*context_);
    check(api().mem_host_alloc(&data_, bytes, kHostPortable | kHostMapped), "cuMemHostAlloc",
          Errc::kRegistration);
    std::memset(data_, 0, bytes);
    if (const Status status = api().mem_host_get_device_pointer(&device_, data_, 0)) {
      release();
      check(status, "cuMemHostGetDevicePointer", Errc::kRegistration);
    }
  }
  ~PinnedMemory() { release(); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* data() const noexcept { return data_; }
  std::uint64_t address() const noexcept { return reinterpret_cast<std::uint64_t>(data_); }
  DevicePointer on_device() const noexcept { return device_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void release() noexcept {
    const Current current(*context_);
    note(opened_api().mem_free_host(data_), "cuMemFreeHost");
  }

  std::shared_ptr<const Context> context_;
  void* data_ = nullptr;
  DevicePointer device_ = 0;
  std::size_t bytes_;
};

class DeviceMemory {
 public:
  DeviceMemory(std::shared_ptr<const Context> context, std::size_t bytes)
      : context_(std::move(context)) {
    const Current current(*context_);
    check(api().mem_alloc(&address_, bytes), "cuMemAlloc", Errc::kRegistration);
  }
  ~DeviceMemory() {
    const Current current(*context_);
    note(opened_api().mem_free(address_), "cuMemFree");
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  DevicePointer address() const noexcept { return address_; }

 private:
  std::shared_ptr<const Context> context_;
  DevicePointer address_ = 0;
};

// A stream of the highest priority: thread blocks of a copy go first beside a model's, for a copy
// is short and somebody waits for it. Independent of the legacy default stream.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Context> context) : context_(std::move(context)) {
    const Current current(*context_);
    int least = 0;
    int greatest = 0;
    check(api().ctx_get_stream_priority_range(&least, &greatest), "cuCtxGetStreamPriorityRange");
    check(api().stream_create_with_priority(&raw_, kStreamNonBlocking, greatest),
          "cuStreamCreateWithPriority");
  }
  ~Stream() {
    const Current current(*context_);
    note(opened_api().stream_destroy(raw_), "cuStreamDestroy");
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  RawStream raw() const noexcept { return raw_; }

 private:
  std::shared_ptr<const Context> context_;
  RawStream raw_ = nullptr;
};

}  // namespace rdma_kv::cuda
