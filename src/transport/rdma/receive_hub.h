// Wakes the receiving ends of one rail when notices come.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "base/reactor.h"
#include "verbs/completion_queue.h"

namespace rdma_kv::transport::rdma {

// A receiving end. Called on the reactor's thread.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // Takes what has come, up to a fair share; true: there may be more.
  [[nodiscard]] virtual bool serve() noexcept = 0;
};

// Owns the completion channel that all receiving ends of a rail share. Each of them has a
// completion queue of its own, for two reasons: a queue pair number that the NIC gives out again
// must not find completions of its last owner, and a flood on one link must fill no other's queue.
class ReceiveHub : public std::enable_shared_from_this<ReceiveHub> {
 public:
  ReceiveHub(Reactor& reactor, std::shared_ptr<const verbs::Device> device);
  ~ReceiveHub();

  // Begins to listen; once, when a shared_ptr owns it. Throws Error.
  void start();

  const std::shared_ptr<const verbs::CompletionChannel>& channel() const noexcept {
    return channel_;
  }

  // `receiver` is borrowed until remove(), which comes on the reactor's thread (or before any
  // completion can come). The result is the context of its completion queue.
  void* add(Receiver& receiver);
  void remove(void* context) noexcept;
  // Looks after one that was held up. On the reactor's thread.
  void serve(void* context) noexcept { serve(reinterpret_cast<std::uintptr_t>(context)); }

 private:
  void on_events() noexcept;
  void serve(std::uintptr_t key) noexcept;

  Reactor& reactor_;
  std::shared_ptr<const verbs::CompletionChannel> channel_;
  std::mutex mutex_;  // guards the two below; never held while a receiver is served
  std::unordered_map<std::uintptr_t, Receiver*> receivers_;
  std::uintptr_t next_key_ = 1;
};

}  // namespace rdma_kv::transport::rdma
