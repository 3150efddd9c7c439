// What a NIC reports by itself: a port that goes down, a queue pair that failed.
#pragma once

#include <memory>

#include "base/reactor.h"
#include "verbs/device.h"

namespace rdma_kv::transport::rdma {

// Logs the NIC's events and takes them from the kernel, which keeps them otherwise. A failure that
// matters to a transfer reaches it through its own completions. Lives on the reactor's thread.
class AsyncEvents {
 public:
  AsyncEvents(Reactor& reactor, std::shared_ptr<const verbs::Device> device);  // throws Error
  ~AsyncEvents();
  AsyncEvents(const AsyncEvents&) = delete;
  AsyncEvents& operator=(const AsyncEvents&) = delete;

 private:
  void drain() noexcept;

  Reactor& reactor_;
  std::shared_ptr<const verbs::Device> device_;
};

}  // namespace rdma_kv::transport::rdma
