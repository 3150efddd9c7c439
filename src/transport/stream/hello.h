// The sender's half of opening a stream.
#pragma once

#include <cstdint>

#include "base/fd.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::stream {

// Connects to the data port, shows the token and waits for the welcome: blocks until
// remote.deadline. Throws Error(kHandshake) with address, reason and remedy.
UniqueFd open_stream(const RemoteEnd& remote, std::uint16_t index, std::uint16_t count);

}  // namespace rdma_kv::transport::stream
