// The decode end of a loopback link, and where prefill finds it: both are in one process.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "transport/inbound.h"
#include "transport/remote_end.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::loopback {

// Shared by the link, which writes, and the inbound, which ends it. The mutex is held around every
// copy and notice, so that nothing lands after end().
struct End {
  explicit End(NoticeSink& sink, Origin origin) : sink(sink), origin(std::move(origin)) {}
  void end() noexcept;

  std::mutex mutex;
  NoticeSink& sink;  // not to be touched once ended
  const Origin origin;
  bool is_ended = false;
  EventFd ended;  // readable once ended: wakes the link's side
};

// For Acceptor::expect() with no streams.
std::unique_ptr<stream::StreamInbound> make_inbound(std::shared_ptr<End> end);

// The process-wide table of ends, by the decode engine's epoch and the ticket. Any thread.
void publish(std::uint64_t epoch, const stream::Ticket& ticket, const std::shared_ptr<End>& end);
// Once per ticket. Throws Error(kUnavailable) when there is no such end in this process.
std::shared_ptr<End> find(const RemoteEnd& remote);

}  // namespace rdma_kv::transport::loopback
