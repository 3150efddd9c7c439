// The data port: where peers' streams come in, show their token and are handed to their link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/reactor.h"
#include "transport/inbound.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::stream {

// An Inbound whose life hangs on streams. All calls come on the reactor's thread.
class StreamInbound : public Inbound {
 public:
  // A stream of this link showed its token and was welcomed; `index` of `count` as it said.
  // The descriptor is now the link's. Returns false to refuse it (the stream is closed then).
  virtual bool attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept = 0;
};

// Serves links whose bytes travel another way: takes notices to the sink, answers END after
// calling `end_path`, and ends itself (calling `end_path` too) when the stream closes.
// `end_path` must make sure that nothing of the link can land any more (destroy queue pairs, ...).
//
// Where only the sender can stop the bytes (cma: the kernel lets it write into us), end() closes
// our half of the stream and waits up to `wait_for_peer` for the sender to close the other, which
// it does when it has stopped; if it does not, the log says that bytes may still land.
std::unique_ptr<StreamInbound> make_side_inbound(Reactor& reactor, NoticeSink& sink, Origin origin,
                                                 const char* transport,
                                                 std::function<void()> end_path,
                                                 Nanos wait_for_peer = 0);

// What the handshake hands to the peer, so that its streams are let in.
struct Ticket {
  std::uint64_t link_id = 0;
  Token token{};
};

struct InboundInfo {
  std::uint64_t link_id;
  std::string transport;
  Origin origin;
  bool is_open;  // its streams have come
};

class Acceptor {
 public:
  // Listens on a numeric address; port 0 picks one. Throws Error(kConfig) naming address and port.
  Acceptor(Reactor& reactor, const std::string& address, std::uint16_t port);
  ~Acceptor();  // as close()
  std::uint16_t port() const noexcept;
  void set_epoch(std::uint64_t epoch) noexcept;  // told to peers in the welcome

  // Makes room for one link of `streams` streams (1..64), which must come within `ttl`; a link of
  // 0 streams (loopback) is open at once and stays until it is ended.
  // Any thread. The token lets in each stream index once and is then worthless.
  // Throws Error(kValue) after close().
  Ticket expect(std::unique_ptr<StreamInbound> inbound, Origin origin, std::uint16_t streams,
                Nanos ttl);

  // Ends every link, and lets no other begin. Idempotent. Any thread.
  void close() noexcept;

  // Ends one link, or all of a peer's: when it returns nothing of it can land. Any thread.
  void end(std::uint64_t link_id, const std::string& why);
  void end_epoch(std::uint64_t epoch, const std::string& why);
  std::vector<InboundInfo> links();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // the reactor's periodic task knows it too
};

}  // namespace rdma_kv::transport::stream
