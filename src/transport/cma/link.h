// Writes from this process straight into another one's memory, with process_vm_writev.
#pragma once

#include <memory>

#include "base/reactor.h"
#include "transport/cma/offer.h"
#include "transport/link.h"
#include "transport/remote_end.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::cma {

// Blocks until remote.deadline. Throws Error(kUnavailable) when this process may not reach the
// peer's memory, Error(kHandshake) when the peer's data port does not let it in.
std::unique_ptr<Link> open(const RemoteEnd& remote, const Offer& offer);

// The decode side, for Acceptor::expect() with one stream. `prefill` is the peer's pid in this
// process's pid namespace, 0 when not known; see transport/process/ptracer.h.
std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, pid_t prefill);

}  // namespace rdma_kv::transport::cma
