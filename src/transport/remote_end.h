// What the handshake tells prefill about the decode end it may write to.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "kv/mapping.h"

namespace rdma_kv::transport {

inline constexpr std::size_t kTokenBytes = 16;
using Token = std::array<std::uint8_t, kTokenBytes>;

// Everything that all transports need to open a link. The mapping is shared with the engine.
struct RemoteEnd {
  std::string name;  // "192.168.1.100:12345", for messages
  std::string host;  // numeric address of the peer's data port
  std::uint16_t data_port = 0;
  std::uint64_t epoch = 0;    // of the peer
  std::uint64_t link_id = 0;  // given by the peer for this link
  Token token{};              // one-time, opens this link's streams and nothing else
  std::shared_ptr<const kv::Mapping> mapping;
  Nanos deadline = kNever;  // for opening
  // Streams of the same link that others open, before and behind those that this end is used for.
  std::uint16_t streams_before = 0;
  std::uint16_t streams_behind = 0;
};

}  // namespace rdma_kv::transport
