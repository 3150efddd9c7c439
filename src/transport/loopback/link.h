// A link inside one process that can be made to fail; for tests.
#pragma once

#include <memory>

#include "transport/link.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::loopback {

// Copies through remote.mapping, which must know the addresses of both sides. Throws
// Error(kUnavailable).
std::unique_ptr<Link> open(const RemoteEnd& remote);

}  // namespace rdma_kv::transport::loopback
