// What one side tells the other in the handshake, so that their queue pairs can be connected.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "verbs/gid.h"

namespace rdma_kv::transport::rdma {

struct QueuePairAddress {
  std::uint32_t number;  // 24 bits
  std::uint32_t psn;     // 24 bits
};

struct Endpoint {
  verbs::Gid gid{};
  std::uint16_t lid = 0;
  std::uint32_t mtu_bytes = 0;
  std::string link_layer;  // "Ethernet" or "InfiniBand"
  std::vector<QueuePairAddress> queue_pairs;
};

}  // namespace rdma_kv::transport::rdma
