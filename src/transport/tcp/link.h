// The sending end of the tcp transport.
#pragma once

#include <cstdint>
#include <memory>

#include "transport/link.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::tcp {

// Opens `streams` streams (1..64) to the peer: blocks until remote.deadline. Throws
// Error(kHandshake) with address, reason and remedy.
std::unique_ptr<Link> open(const RemoteEnd& remote, std::uint16_t streams);

}  // namespace rdma_kv::transport::tcp
