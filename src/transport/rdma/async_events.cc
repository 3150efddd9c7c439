#include "transport/rdma/async_events.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace rdma_kv::transport::rdma {
namespace {

// Events that an operator should see; the others are ordinary or follow from one of these.
bool is_trouble(ibv_event_type type) noexcept {
  switch (type) {
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_DEVICE_FATAL:
    case IBV_EVENT_PORT_ERR:
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_LID_CHANGE:
      return true;
    default:
      return false;
  }
}

}  // namespace

AsyncEvents::AsyncEvents(Reactor& reactor, std::shared_ptr<const verbs::Device> device)
    : reactor_(reactor), device_(std::move(device)) {
  const int fd = device_->context()->async_fd;
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    const int err = errno;
    throw Error(Errc::kUnavailable,
                join("fcntl on the events of ", device_->nic(), ": ", reason(err)));
  }
  reactor_.add(fd, EPOLLIN, [this](std::uint32_t) { drain(); });
}

AsyncEvents::~AsyncEvents() { reactor_.remove(device_->context()->async_fd); }

void AsyncEvents::drain() noexcept {
  ibv_async_event event;
  while (verbs::lib().get_async_event(device_->context(), &event) == 0) {
    const ibv_event_type type = event.event_type;
    verbs::lib().ack_async_event(&event);
    log(is_trouble(type) ? LogLevel::kWarning : LogLevel::kDebug,
        join("NIC ", device_->nic(), ": ", verbs::lib().event_type_str(type)));
  }
}

}  // namespace rdma_kv::transport::rdma
