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

  // The sender has said in another way (a new handshake) that it writes no more over this link.
  // Only of an ended link.
  virtual void confirm_quiesced() noexcept {}

  // Called once the link has ended, and again once it is quiesced if that came later. Must not
  // destroy the link.
  virtual void set_on_end(std::function<void()> on_end) { on_end_ = std::move(on_end); }

 protected:
  void tell_end() noexcept {
    if (on_end_) on_end_();
  }

 private:
  std::function<void()> on_end_;
};

// Who can stop the bytes of a link.
enum class Stops {
  kHere,        // dropping the path does: queue pairs, streams
  kAtTheSender  // the sender's own calls write into us (cma)
};

// Serves links whose bytes travel another way: takes notices to the sink, answers END after
// calling `end_path`, and ends itself (calling `end_path` too) when the stream closes.
// `end_path` must make sure that nothing of the link can land any more (destroy queue pairs, ...).
//
// Where only the sender can stop the bytes, end() closes our half of the stream, and the link is
// quiesced once the sender has closed the other: it does so when it has stopped, or died. Where the
// stream does not tell (it broke off, or a child holds it), `sender` does: a pidfd, or none.
std::unique_ptr<StreamInbound> make_side_inbound(Reactor& reactor, NoticeSink& sink, Origin origin,
                                                 const char* transport,
                                                 std::function<void()> end_path,
                                                 Stops stops = Stops::kHere, UniqueFd sender = {});

// What the handshake hands to the peer, so that its streams are let in.
struct Ticket {
  std::uint64_t link_id = 0;
  Token token{};
};

struct InboundInfo {
  std::uint64_t link_id;
  std::string transport;
  Origin origin;
  bool is_open;   // its streams have come
  bool is_ended;  // and not quiesced: bytes of it may still land
  std::string why_ended;
};

struct EndedLink {
  std::uint64_t link_id;
  std::string why;
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

  // Ends every link, and lets no other begin. Waits a moment for those that their senders have to
  // stop, and logs which did not. Idempotent. Any thread.
  void close() noexcept;

  // Ends one link, or all of a peer's. True when nothing of it can land any more; false when that
  // was not reached until `deadline` (0: do not wait). Any thread but the reactor's.
  bool end(std::uint64_t link_id, const std::string& why, Nanos deadline);
  bool end_epoch(std::uint64_t epoch, const std::string& why, Nanos deadline);
  // Ends links of this peer, which has said itself that it writes no more over them. Any thread.
  void end_confirmed(const std::vector<std::uint64_t>& link_ids, std::uint64_t epoch,
                     const std::string& why);
  // All that are open, expected, or ended and not quiesced.
  std::vector<InboundInfo> links();

  // Delivers every notice of every link that has arrived here. Any thread.
  void settle();

  // Links that ended since the last call, whoever ended them; the oldest are forgotten when nobody
  // asks. The descriptor is readable while some wait.
  std::vector<EndedLink> take_ended();
  int ended_fd() const noexcept;

 private:
  struct Impl;
  bool await_quiesced(const std::function<bool(std::uint64_t, const Origin&)>& is_meant,
                      Nanos deadline);

  std::shared_ptr<Impl> impl_;  // the reactor's periodic task knows it too
};

}  // namespace rdma_kv::transport::stream
