// The receiving end of the tcp transport.
#pragma once

#include <cstdint>
#include <memory>

#include "base/reactor.h"
#include "kv/mapping.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::tcp {

// Receives straight into the blocks of `mapping`'s destination side, for Acceptor::expect().
// Throws Error(kValue) unless there are 1..64 streams.
std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, kv::Mapping mapping,
                                                    std::uint16_t streams);

}  // namespace rdma_kv::transport::tcp
