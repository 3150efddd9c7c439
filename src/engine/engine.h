// What one communicator owns: its thread, its layout, its peers and its data port.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "engine/notices.h"
#include "engine/peer.h"
#include "kv/layout.h"
#include "transport/link.h"
#include "transport/remote_end.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::engine {

// Safe from any thread. Knows no kind of transport: links and inbound ends are handed to it by the
// factories of transport/<name>/, which bindings/<name>_py.cc calls.
class Engine {
 public:
  explicit Engine(kv::Layout layout);
  ~Engine();

  std::uint64_t epoch() const noexcept { return epoch_; }  // random, never 0
  const kv::Layout& layout() const noexcept { return layout_; }
  Reactor& reactor() noexcept { return reactor_; }
  Notices& notices() noexcept { return notices_; }

  // False in a forked child, which has none of the threads and shares every descriptor.
  bool is_owner() const noexcept { return ::getpid() == owner_; }
  void check_owner() const;  // throws Error(kValue) in a forked child

  // Opens the data port (decode). Returns it. Throws Error(kConfig).
  std::uint16_t listen(const std::string& address, std::uint16_t port);
  // The data port's acceptor; throws Error(kValue) before listen(). Shared, because another thread
  // may close the engine meanwhile.
  std::shared_ptr<transport::stream::Acceptor> acceptor();

  // Takes a link over (prefill).
  std::shared_ptr<Peer> add_peer(const transport::RemoteEnd& remote,
                                 std::unique_ptr<transport::Link> link);

  // Takes a peer back that its holder wants no more: closes it as soon as its transfers are over
  // and nobody holds those. Never waits.
  void release(std::shared_ptr<Peer> peer) noexcept;

  // Closes all peers at the same time, waiting for their transfers until `deadline`. One that comes
  // meanwhile is left.
  void close_peers(Nanos deadline) noexcept;

  // Ends everything, waiting for transfers under way until `deadline`. Idempotent; of several
  // callers none returns before all has ended, and the earliest deadline counts.
  void close(Nanos deadline) noexcept;

 private:
  void tick();
  std::vector<std::shared_ptr<Peer>> all_peers();
  void end_released() noexcept;

  const pid_t owner_ = ::getpid();
  const std::uint64_t epoch_;
  const kv::Layout layout_;
  Notices notices_;
  Reactor reactor_;
  std::mutex ending_;  // held while acceptor and reactor end; taken before mutex_
  std::mutex mutex_;
  std::vector<std::weak_ptr<Peer>> peers_;
  std::vector<std::shared_ptr<Peer>> released_;            // until their links are gone
  std::shared_ptr<transport::stream::Acceptor> acceptor_;  // goes before the reactor
  bool is_closed_ = false;
};

}  // namespace rdma_kv::engine
