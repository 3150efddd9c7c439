#include "transport/rdma/receive_hub.h"

#include <sys/epoll.h>

#include <utility>

namespace rdma_kv::transport::rdma {

ReceiveHub::ReceiveHub(Reactor& reactor, std::shared_ptr<const verbs::Device> device)
    : reactor_(reactor),
      channel_(std::make_shared<verbs::CompletionChannel>(std::move(device))) {}

ReceiveHub::~ReceiveHub() { reactor_.remove(channel_->fd()); }

void ReceiveHub::start() {
  reactor_.add(channel_->fd(), EPOLLIN, [self = weak_from_this()](std::uint32_t) {
    if (const auto hub = self.lock()) hub->on_events();
  });
}

void* ReceiveHub::add(Receiver& receiver) {
  const std::lock_guard lock(mutex_);
  const std::uintptr_t key = next_key_++;
  receivers_.emplace(key, &receiver);
  return reinterpret_cast<void*>(key);
}

void ReceiveHub::remove(void* context) noexcept {
  const std::lock_guard lock(mutex_);
  receivers_.erase(reinterpret_cast<std::uintptr_t>(context));
}

void ReceiveHub::on_events() noexcept {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  while (channel_->take(&queue, &context)) {
    verbs::lib().ack_cq_events(queue, 1);  // at once: serving may destroy the queue
    serve(reinterpret_cast<std::uintptr_t>(context));
  }
}

void ReceiveHub::serve(std::uintptr_t key) noexcept {
  Receiver* receiver = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto place = receivers_.find(key);
    if (place == receivers_.end()) return;
    receiver = place->second;
  }
  if (!receiver->serve()) return;
  try {
    reactor_.post([self = weak_from_this(), key] {
      if (const auto hub = self.lock()) hub->serve(key);
    });
  } catch (const std::exception&) {  // no memory for a task: its next notice wakes it again
  }
}

}  // namespace rdma_kv::transport::rdma
