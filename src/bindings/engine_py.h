// What Python holds of the engine.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/peer.h"
#include "engine/transfer.h"

namespace rdma_kv::bindings {

// Both keep the engine, whose reactor they need, alive.
struct PyPeer {
  std::shared_ptr<engine::Peer> peer;
  std::shared_ptr<engine::Engine> engine;
};

struct PyTransfer {
  std::shared_ptr<engine::Transfer> transfer;
  std::shared_ptr<engine::Engine> engine;
};

}  // namespace rdma_kv::bindings
