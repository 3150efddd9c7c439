// The receiving end of a staged link; see link.h.
#pragma once

#include <functional>
#include <memory>

#include "base/reactor.h"
#include "cuda/copy_kernel.h"
#include "kv/layout.h"
#include "transport/inbound.h"
#include "transport/staged/link.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::staged {

// The inner link's receiving end, which writes into `ring` and tells `sink` of each slot.
using MakeInner =
    std::function<std::unique_ptr<stream::StreamInbound>(NoticeSink& sink, const kv::Layout& ring)>;

struct Accepted {
  std::unique_ptr<stream::StreamInbound> inbound;  // of one stream more than the inner one
  RemoteRing ring;                                 // to be told to prefill
};

// `prefill` is the geometry of the peer's cache, `layout` our own. Throws Error.
Accepted accept(Reactor& reactor, NoticeSink& sink, const Origin& origin, const kv::Layout& layout,
                const kv::Geometry& prefill, std::shared_ptr<const cuda::CopyKernel> kernel,
                std::uint16_t inner_streams, const MakeInner& make_inner);

}  // namespace rdma_kv::transport::staged
