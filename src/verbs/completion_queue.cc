#include "verbs/completion_queue.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

namespace rdma_kv::verbs {

CompletionChannel::CompletionChannel(std::shared_ptr<const Device> device)
    : device_(std::move(device)), channel_(lib().create_comp_channel(device_->context())) {
  if (!channel_) {
    const int err = errno;
    throw Error(Errc::kUnavailable, join("ibv_create_comp_channel: ", reason(err), ", ",
                                         device_->nic(), "; is `ulimit -n` large enough?"));
  }
  const int flags = ::fcntl(fd(), F_GETFL);
  if (flags < 0 || ::fcntl(fd(), F_SETFL, flags | O_NONBLOCK) < 0) {
    const int err = errno;
    throw Error(Errc::kUnavailable, join("fcntl on a completion channel of ", device_->nic(), ": ",
                                         reason(err)));
  }
}

bool CompletionChannel::take(ibv_cq** queue, void** context) const noexcept {
  return lib().get_cq_event(channel_.get(), queue, context) == 0;
}

CompletionQueue::CompletionQueue(std::shared_ptr<const CompletionChannel> channel,
                                 const Device& device, int entries, void* context)
    : channel_(std::move(channel)),
      queue_(lib().create_cq(device.context(), entries, context, channel_->get(), 0)) {
  if (queue_) return;
  const int err = errno;
  throw Error(Errc::kUnavailable,
              join("ibv_create_cq: ", reason(err), ", ", entries, " entries on ", device.nic(),
                   " (it allows ", device.limits().max_cqe, ", and ", device.limits().max_cq,
                   " queues); ask for fewer queue pairs (KVCACHE_QPS_PER_PEER)"));
}

}  // namespace rdma_kv::verbs
