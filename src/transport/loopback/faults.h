// What loopback links of this process do wrong on request; for tests.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

#include "base/clock.h"

namespace rdma_kv::transport::loopback {

// Safe from any thread. Applies to every loopback link of the process until clear().
class Faults {
 public:
  void drop(std::uint64_t transfers) noexcept;   // the next so many never complete by themselves
  void delay(Nanos by) noexcept;                 // every later transfer moves this much later
  void cut(std::uint64_t after_bytes) noexcept;  // links break once so many more bytes have moved
  void clear() noexcept;

  bool takes_drop() noexcept;  // uses one up
  Nanos current_delay() const noexcept;
  // How many of `bytes` may still move; fewer than asked for: the link is cut there.
  std::uint64_t allow(std::uint64_t bytes) noexcept;

 private:
  mutable std::mutex mutex_;
  std::uint64_t drops_ = 0;
  Nanos delay_ = 0;
  std::optional<std::uint64_t> bytes_until_cut_;
};

Faults& faults() noexcept;

}  // namespace rdma_kv::transport::loopback
