// Where work completions come out, and how to sleep until one does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "verbs/device.h"

namespace rdma_kv::verbs {

// A descriptor that becomes readable when an armed completion queue gets an entry. Never blocks.
class CompletionChannel {
 public:
  explicit CompletionChannel(std::shared_ptr<const Device> device);  // throws Error(kUnavailable)

  int fd() const noexcept { return channel_->fd; }
  ibv_comp_channel* get() const noexcept { return channel_.get(); }

  // The next event's queue and that queue's context; false when there is none. Every event that
  // was taken must be acknowledged (ibv_ack_cq_events) before its queue is destroyed.
  [[nodiscard]] bool take(ibv_cq** queue, void** context) const noexcept;

 private:
  std::shared_ptr<const Device> device_;
  UniqueChannel channel_;
};

// Borrowed by the queue pairs that complete into it: they must be gone first.
class CompletionQueue {
 public:
  // `context` comes back with the channel's events. Throws Error(kUnavailable).
  CompletionQueue(std::shared_ptr<const CompletionChannel> channel, const Device& device,
                  int entries, void* context);

  ibv_cq* get() const noexcept { return queue_.get(); }

  // Returns how many; negative when the queue itself failed (it overran, or the NIC is gone).
  [[nodiscard]] int poll(ibv_wc* out, int most) const noexcept {
    return ibv_poll_cq(queue_.get(), most, out);
  }
  // One event for the next entry. Entries that came before are not announced: poll once more.
  [[nodiscard]] bool request_notice() const noexcept {
    return ibv_req_notify_cq(queue_.get(), 0) == 0;
  }

 private:
  std::shared_ptr<const CompletionChannel> channel_;
  UniqueCq queue_;
};

}  // namespace rdma_kv::verbs
