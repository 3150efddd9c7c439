// Writes from a GPU of this process straight into another one's device memory on the same host.
#pragma once

#include <memory>
#include <vector>

#include "base/reactor.h"
#include "cuda/export.h"
#include "kv/layout.h"
#include "transport/link.h"
#include "transport/process/identity.h"
#include "transport/remote_end.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::cuda_ipc {

// What a decode process says of its memory.
struct Offer {
  process::Identity process;
  std::vector<cuda::Segment> segments;
};

// Maps the peer's memory and compiles the kernel, so it may take a moment; its stream blocks until
// remote.deadline. `layout` is prefill's own. Throws Error(kUnavailable) when the memory cannot be
// mapped here, Error(kHandshake) when the peer's data port does not let it in.
std::unique_ptr<Link> open(const RemoteEnd& remote, const Offer& offer, const kv::Layout& layout);

// The decode side, for Acceptor::expect() with one stream. `prefill` is the peer's pid in this
// process's pid namespace, 0 when not known; see transport/process/ptracer.h.
std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, pid_t prefill);

}  // namespace rdma_kv::transport::cuda_ipc
