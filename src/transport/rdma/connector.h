// Opens an rdma link from prefill's side, in two steps with the handshake between them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "transport/rdma/link.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::rdma {

// Queue pairs that wait for their peers. Used by one thread.
class Connector {
 public:
  // Throws Error: kValue for a count out of 1..kMostQueuePairs, kUnavailable when the NIC refuses.
  Connector(std::shared_ptr<const Rail> rail, std::uint32_t queue_pairs);

  const Endpoint& endpoint() const noexcept { return endpoint_; }

  // Once. Blocks until the peer's data port has welcomed the link's stream, at the latest until
  // remote.deadline. `rkeys` as the peer's rail gave them. Throws Error(kHandshake).
  std::unique_ptr<Link> connect(const RemoteEnd& remote, const Endpoint& endpoint,
                                std::vector<std::uint32_t> rkeys, bool flush);

 private:
  LinkParts parts_;
  Endpoint endpoint_;
};

}  // namespace rdma_kv::transport::rdma
