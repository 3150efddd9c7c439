// What Python holds of the engine.
#pragma once

#include <memory>
#include <utility>

#include "engine/engine.h"
#include "engine/peer.h"
#include "engine/transfer.h"

namespace rdma_kv::bindings {

// Both keep the engine, whose reactor they need, alive.
struct PyPeer {
  PyPeer(std::shared_ptr<engine::Peer> peer, std::shared_ptr<engine::Engine> engine) noexcept
      : peer(std::move(peer)), engine(std::move(engine)) {}
  PyPeer(PyPeer&&) noexcept = default;
  PyPeer& operator=(PyPeer&&) = delete;
  // Not left to the peer's destructor: that waits for a link to be quiesced, with the GIL held.
  ~PyPeer() {
    if (peer && engine->is_owner()) engine->release(std::move(peer));
  }

  std::shared_ptr<engine::Peer> peer;
  std::shared_ptr<engine::Engine> engine;
};

struct PyTransfer {
  std::shared_ptr<engine::Engine> engine;  // declared first: the transfer's peer needs its reactor
  std::shared_ptr<engine::Transfer> transfer;
};

}  // namespace rdma_kv::bindings
