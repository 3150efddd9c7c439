#include "engine/engine.h"

#include <algorithm>
#include <random>
#include <utility>

#include "engine/limits.h"

namespace rdma_kv::engine {
namespace {

std::uint64_t random_epoch() {
  std::random_device source;
  std::uint64_t epoch = 0;
  while (epoch == 0) epoch = (std::uint64_t{source()} << 32) | source();
  return epoch;
}

}  // namespace

Engine::Engine(kv::Layout layout)
    : epoch_(random_epoch()), layout_(std::move(layout)), reactor_("rdma_kv") {
  reactor_.every(kTick, [this] { tick(); });
}

std::vector<std::shared_ptr<Peer>> Engine::all_peers() {
  std::vector<std::shared_ptr<Peer>> alive;
  const std::lock_guard lock(mutex_);
  for (const auto& known : peers_) {
    if (auto peer = known.lock()) alive.push_back(std::move(peer));
  }
  return alive;
}

void Engine::tick() {
  for (const auto& peer : all_peers()) peer->tick();
  end_released();
}

void Engine::release(std::shared_ptr<Peer> peer) noexcept {
  if (peer->is_gone()) return;
  {
    const std::lock_guard lock(mutex_);
    released_.push_back(std::move(peer));
  }
  reactor_.wake_at(now());
}

void Engine::end_released() noexcept {
  std::vector<std::shared_ptr<Peer>> gone;  // which end without the lock
  const std::lock_guard lock(mutex_);
  std::erase_if(released_, [&](std::shared_ptr<Peer>& peer) {
    if (!peer->is_gone()) {
      if (peer.use_count() == 1) peer->end_soon("nobody holds it any more");
      return false;
    }
    gone.push_back(std::move(peer));
    return true;
  });
}

Engine::~Engine() { close(now()); }

void Engine::check_owner() const {
  if (is_owner()) return;
  throw Error(Errc::kValue,
              join("it was made by process ", owner_,
                   " and does not survive fork(); make a communicator in this process, or start it "
                   "with the method 'spawn'"));
}

std::uint16_t Engine::listen(const std::string& address, std::uint16_t port) {
  const std::lock_guard lock(mutex_);
  if (is_closed_) throw Error(Errc::kValue, "the engine is closed");
  if (acceptor_) throw Error(Errc::kValue, join("already listening on port ", acceptor_->port()));
  acceptor_ = std::make_shared<transport::stream::Acceptor>(reactor_, address, port);
  acceptor_->set_epoch(epoch_);
  return acceptor_->port();
}

std::shared_ptr<transport::stream::Acceptor> Engine::acceptor() {
  const std::lock_guard lock(mutex_);
  if (is_closed_) throw Error(Errc::kValue, "the engine is closed");
  if (!acceptor_) throw Error(Errc::kValue, "the data port is not open: call listen() first");
  return acceptor_;
}

std::shared_ptr<Peer> Engine::add_peer(const transport::RemoteEnd& remote,
                                       std::unique_ptr<transport::Link> link) {
  auto peer = Peer::make(reactor_, remote.mapping, remote.name, remote.epoch, std::move(link));
  const std::lock_guard lock(mutex_);
  if (is_closed_) {
    peer->close(now());
    throw Error(Errc::kValue, "the engine is closed");
  }
  std::erase_if(peers_, [](const std::weak_ptr<Peer>& known) { return known.expired(); });
  peers_.push_back(peer);
  return peer;
}

void Engine::close_peers(Nanos deadline) noexcept {
  if (!is_owner()) return;
  const auto peers = all_peers();
  std::vector<Peer*> open;
  for (const auto& peer : peers) open.push_back(peer.get());
  Peer::close_all(open, deadline);
}

void Engine::close(Nanos deadline) noexcept {
  if (!is_owner()) return;
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
  }
  notices_.close();
  close_peers(deadline);
  const std::lock_guard ending(ending_);
  std::shared_ptr<transport::stream::Acceptor> acceptor;
  {
    const std::lock_guard lock(mutex_);
    acceptor.swap(acceptor_);
  }
  if (acceptor) acceptor->close();  // not left to its destructor: somebody may still hold it
  reactor_.stop();
  end_released();
}

}  // namespace rdma_kv::engine
