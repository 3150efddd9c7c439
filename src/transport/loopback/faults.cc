#include "transport/loopback/faults.h"

#include <algorithm>

namespace rdma_kv::transport::loopback {

void Faults::drop(std::uint64_t transfers) noexcept {
  const std::lock_guard lock(mutex_);
  drops_ = transfers;
}

void Faults::delay(Nanos by) noexcept {
  const std::lock_guard lock(mutex_);
  delay_ = std::max<Nanos>(by, 0);
}

void Faults::cut(std::uint64_t after_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  bytes_until_cut_ = after_bytes;
}

void Faults::clear() noexcept {
  const std::lock_guard lock(mutex_);
  drops_ = 0;
  delay_ = 0;
  bytes_until_cut_.reset();
}

bool Faults::takes_drop() noexcept {
  const std::lock_guard lock(mutex_);
  if (drops_ == 0) return false;
  --drops_;
  return true;
}

Nanos Faults::current_delay() const noexcept {
  const std::lock_guard lock(mutex_);
  return delay_;
}

std::uint64_t Faults::allow(std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (!bytes_until_cut_) return bytes;
  const std::uint64_t allowed = std::min(bytes, *bytes_until_cut_);
  *bytes_until_cut_ -= allowed;
  return allowed;
}

Faults& faults() noexcept {
  static Faults one;
  return one;
}

}  // namespace rdma_kv::transport::loopback
