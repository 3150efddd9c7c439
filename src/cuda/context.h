// The primary context of a device, which the process shares with torch and everybody else.
#pragma once

#include <memory>
#include <string>

#include "cuda/driver.h"

namespace rdma_kv::cuda {

// Retained as long as this lives. Immutable, so any thread may use it.
class Context {
 public:
  // One per process and device for as long as somebody holds it. Throws Error(kUnavailable).
  static std::shared_ptr<const Context> of(int ordinal);

  explicit Context(int ordinal);  // rather use of()
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int ordinal() const noexcept { return ordinal_; }
  DeviceNumber device() const noexcept { return device_; }
  RawContext raw() const noexcept { return raw_; }
  int attribute(int which) const;  // throws Error(kUnavailable)
  std::string name() const;        // "NVIDIA H200 (GPU 0)"
  Uuid uuid() const;

 private:
  int ordinal_;
  DeviceNumber device_ = 0;
  RawContext raw_ = nullptr;
};

// Makes a context the calling thread's current one for a scope. Costs little when it is already.
class Current {
 public:
  explicit Current(const Context& context) noexcept {
    RawContext now = nullptr;
    (void)opened_api().ctx_get_current(&now);
    if (now == context.raw()) return;
    is_pushed_ = opened_api().ctx_push_current(context.raw()) == kSuccess;
  }
  ~Current() {
    RawContext popped = nullptr;
    if (is_pushed_) (void)opened_api().ctx_pop_current(&popped);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  bool is_pushed_ = false;
};

}  // namespace rdma_kv::cuda
