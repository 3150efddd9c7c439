#include "transport/stream/acceptor.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <deque>
#include <map>
#include <string_view>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/pending.h"
#include "transport/stream/socket.h"

namespace rdma_kv::transport::stream {
namespace {

constexpr int kAcceptsPerTurn = 16;
// How often ended links are forgotten and streams that never came are given up.
constexpr Nanos kSweepEvery = kSecond;
// How long close() waits for senders that have to stop by themselves. Far above one of their calls
// and a thread's wake-up, so that only a stopped process exceeds it.
constexpr Nanos kStopWithin = kSecond;
// How often it is looked whether they have.
constexpr std::chrono::microseconds kLookAgain{500};
// Ended links that are remembered for take_ended().
constexpr std::size_t kMostEnded = 4096;

void fill_random(void* out, std::size_t bytes) {
  if (::getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes)) return;
  const int err = errno;
  throw Error(Errc::kHandshake, join("getrandom: ", reason(err), "; cannot make a token"));
}

// Takes the same time wherever they differ.
bool is_equal(const Token& a, const Token& b) noexcept {
  unsigned difference = 0;
  for (std::size_t i = 0; i < kTokenBytes; ++i) {
    difference |= static_cast<unsigned>(a[i]) ^ static_cast<unsigned>(b[i]);
  }
  return difference == 0;
}

// A link that a ticket was given out for.
struct Expected {
  std::unique_ptr<StreamInbound> inbound;
  Origin origin;
  Token token;
  std::uint16_t streams;
  Nanos expires;
  std::uint64_t arrived = 0;  // one bit per stream index
  std::uint16_t count = 0;
  bool is_told = false;  // that it has ended

  bool is_open() const noexcept { return count == streams; }
};

}  // namespace

// Lives on the reactor's thread, but for the two atomics. Shared only with the periodic task, which
// the reactor keeps for longer than the acceptor lives.
struct Acceptor::Impl {
  Impl(Reactor& reactor, const std::string& address, std::uint16_t port)
      : reactor(reactor), listener(listen_on(parse_address(address, port))) {
    this->port = port_of(local_address(listener.get()));
  }

  void accept_some();
  void admit(UniqueFd stream, const Address& from);
  std::uint64_t least_welcome() const;
  void read_hello(std::uint64_t serial);
  void greet(UniqueFd stream, const Hello& hello);
  const char* objection(const Hello& hello) const noexcept;
  void drop(std::uint64_t serial);
  void sweep();
  void collect();
  void begin_close(const std::string& why);

  Reactor& reactor;
  UniqueFd listener;
  std::uint16_t port = 0;
  std::atomic<std::uint64_t> epoch{0};
  bool is_closed = false;
  bool is_deaf = false;  // out of descriptors: does not accept until the next sweep
  std::map<std::uint64_t, Pending> pending;  // by serial number: the oldest comes first
  std::uint64_t next_serial = 1;
  std::map<std::uint64_t, Expected> links;
  std::deque<EndedLink> ended;
  EventFd has_ended;  // readable while `ended` is not empty
};

void Acceptor::Impl::accept_some() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    Address from;
    from.length = sizeof from.storage;
    UniqueFd stream(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&from.storage),
                              &from.length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (stream) {
      admit(std::move(stream), from);
      continue;
    }
    const int err = errno;
    if (err == EAGAIN || err == EWOULDBLOCK) return;
    if (err == EINTR || err == ECONNABORTED) continue;
    // The connection stays in the backlog and the listener readable: without a pause this spins.
    is_deaf = true;
    reactor.modify(listener.get(), 0);
    log(LogLevel::kError, join("accept on the data port ", port, ": ", reason(err),
                               "; no new links for a second; is `ulimit -n` large enough?"));
    return;
  }
}

// The oldest of the address that has most.
std::uint64_t Acceptor::Impl::least_welcome() const {
  std::map<std::string_view, std::pair<std::size_t, std::uint64_t>> hosts;  // count, oldest serial
  for (const auto& [serial, stranger] : pending) {
    auto& host = hosts.try_emplace(stranger.host(), 0, serial).first->second;
    ++host.first;
  }
  const auto most = std::max_element(hosts.begin(), hosts.end(), [](const auto& a, const auto& b) {
    return a.second.first < b.second.first;
  });
  return most->second.second;
}

void Acceptor::Impl::admit(UniqueFd stream, const Address& from) {
  if (pending.size() >= kMostPending) drop(least_welcome());
  tune(stream.get());
  const int fd = stream.get();
  const std::uint64_t serial = next_serial++;
  const auto entry = pending.try_emplace(serial, std::move(stream), host_of(from)).first;
  try {
    reactor.add(fd, EPOLLIN, [this, serial](std::uint32_t) { read_hello(serial); });
  } catch (...) {
    pending.erase(entry);
    throw;
  }
  reactor.wake_at(entry->second.expires());
}

void Acceptor::Impl::drop(std::uint64_t serial) {
  const auto found = pending.find(serial);
  if (found == pending.end()) return;
  reactor.remove(found->second.fd());
  pending.erase(found);
}

void Acceptor::Impl::read_hello(std::uint64_t serial) {
  const auto found = pending.find(serial);
  if (found == pending.end()) return;
  Hello hello;
  switch (found->second.read(hello)) {
    case Pending::Read::kNeedMore:
      return;
    case Pending::Read::kGarbage:
      log(LogLevel::kWarning, join("closed ", path_of(found->second.fd()),
                                   ": what it sent is no HELLO of rdma_kv; who connects here?"));
      return drop(serial);
    case Pending::Read::kGone:
      return drop(serial);
    case Pending::Read::kHello:
      reactor.remove(found->second.fd());
      UniqueFd stream = found->second.release();
      pending.erase(found);
      return greet(std::move(stream), hello);
  }
}

// Null when the stream is welcome.
const char* Acceptor::Impl::objection(const Hello& hello) const noexcept {
  if (hello.version != kWireVersion)
    return "this side speaks version 1 of the stream protocol only";
  if (hello.receiver_epoch != epoch.load(std::memory_order_relaxed)) {
    return "the decode process was restarted since the handshake";
  }
  const auto found = links.find(hello.link_id);
  // One answer for all three, so that nobody can probe for link ids.
  constexpr const char* kUnknown = "the token is unknown, used up or expired";
  if (found == links.end() || !is_equal(found->second.token, hello.token)) return kUnknown;
  const Expected& link = found->second;
  if (link.inbound->is_ended()) return kUnknown;
  if (hello.stream_count != link.streams || hello.stream_index >= link.streams) {
    return "the number of streams is not the one agreed on in the handshake";
  }
  if ((link.arrived >> hello.stream_index) & 1) return kUnknown;
  return nullptr;
}

void Acceptor::Impl::greet(UniqueFd stream, const Hello& hello) {
  const std::string path = path_of(stream.get());
  if (const char* const why = objection(hello)) {
    log(LogLevel::kWarning, join("refused stream ", path, ": ", why));
    Outbox outbox;
    (void)outbox.push(encode_refused(why));
    (void)outbox.flush(stream.get());
    return shut_and_close(stream);
  }
  Expected& link = links.at(hello.link_id);
  link.arrived |= std::uint64_t{1} << hello.stream_index;
  ++link.count;
  Outbox outbox;
  (void)outbox.push(encode_welcome(epoch.load(std::memory_order_relaxed)));
  if (outbox.flush(stream.get()) == Io::kDone &&
      link.inbound->attach(std::move(stream), hello.stream_index, hello.stream_count)) {
    return;
  }
  link.inbound->end(join("stream ", path, " could not be opened"));
}

void Acceptor::Impl::sweep() {
  const Nanos at = now();
  while (!pending.empty() && pending.begin()->second.expires() <= at) drop(pending.begin()->first);
  if (!pending.empty()) reactor.wake_at(pending.begin()->second.expires());
  for (auto& [id, link] : links) {
    if (!link.is_open() && link.expires <= at) {
      link.inbound->end(join(link.count, " of ", link.streams, " streams came in time"));
    }
  }
  collect();
  if (std::exchange(is_deaf, false) && !is_closed) reactor.modify(listener.get(), EPOLLIN);
}

// Tells of links that have ended, and forgets those of which nothing can land any more.
void Acceptor::Impl::collect() {
  for (auto& [id, link] : links) {
    if (!link.inbound->is_ended() || std::exchange(link.is_told, true)) continue;
    if (ended.size() == kMostEnded) ended.pop_front();
    ended.push_back({id, link.inbound->why_ended()});
    has_ended.signal();
  }
  std::erase_if(links, [](const auto& entry) { return entry.second.inbound->is_quiesced(); });
}

void Acceptor::Impl::begin_close(const std::string& why) {
  if (std::exchange(is_closed, true)) return;
  reactor.remove(listener.get());
  listener.reset();
  while (!pending.empty()) drop(pending.begin()->first);
  for (auto& [id, link] : links) link.inbound->end(why);
  collect();
}

Acceptor::Acceptor(Reactor& reactor, const std::string& address, std::uint16_t port)
    : impl_(std::make_shared<Impl>(reactor, address, port)) {
  Impl* const impl = impl_.get();
  reactor.add(impl->listener.get(), EPOLLIN, [impl](std::uint32_t) { impl->accept_some(); });
  reactor.every(kSweepEvery, [weak = std::weak_ptr<Impl>(impl_)] {
    if (const auto self = weak.lock()) self->sweep();
  });
}

Acceptor::~Acceptor() { close(); }

void Acceptor::close() noexcept {
  // Links live and die on the reactor's thread.
  impl_->reactor.run([&] { impl_->begin_close("the data port was closed"); });
  (void)await_quiesced([](std::uint64_t, const Origin&) { return true; }, now() + kStopWithin);
  impl_->reactor.run([&] { impl_->links.clear(); });
}

std::uint16_t Acceptor::port() const noexcept { return impl_->port; }

void Acceptor::set_epoch(std::uint64_t epoch) noexcept {
  impl_->epoch.store(epoch, std::memory_order_relaxed);
}

Ticket Acceptor::expect(std::unique_ptr<StreamInbound> inbound, Origin origin,
                        std::uint16_t streams, Nanos ttl) {
  if (streams > kMostStreams) {
    throw Error(Errc::kValue, join(streams, " streams; must be at most ", kMostStreams));
  }
  Ticket ticket;
  fill_random(&ticket.link_id, sizeof ticket.link_id);
  fill_random(ticket.token.data(), ticket.token.size());
  impl_->reactor.run([&] {
    if (impl_->is_closed) {
      inbound.reset();  // here, where it would have lived
      throw Error(Errc::kValue, "the data port was closed");
    }
    while (ticket.link_id == 0 || impl_->links.contains(ticket.link_id)) ++ticket.link_id;
    // Soon, and not at once: a link that ends may be in the middle of its own call.
    inbound->set_on_end([&reactor = impl_->reactor, weak = std::weak_ptr<Impl>(impl_)] {
      reactor.post([weak] {
        if (const auto self = weak.lock()) self->collect();
      });
    });
    impl_->links.try_emplace(ticket.link_id, Expected{std::move(inbound), std::move(origin),
                                                      ticket.token, streams, now() + ttl});
  });
  return ticket;
}

bool Acceptor::end(std::uint64_t link_id, const std::string& why, Nanos deadline) {
  impl_->reactor.run([&] {
    const auto found = impl_->links.find(link_id);
    if (found != impl_->links.end()) found->second.inbound->end(why);
    impl_->collect();
  });
  return await_quiesced([&](std::uint64_t id, const Origin&) { return id == link_id; }, deadline);
}

bool Acceptor::end_epoch(std::uint64_t epoch, const std::string& why, Nanos deadline) {
  impl_->reactor.run([&] {
    for (auto& [id, link] : impl_->links) {
      if (link.origin.epoch == epoch) link.inbound->end(why);
    }
    impl_->collect();
  });
  const auto is_meant = [&](std::uint64_t, const Origin& origin) { return origin.epoch == epoch; };
  return await_quiesced(is_meant, deadline);
}

void Acceptor::end_confirmed(const std::vector<std::uint64_t>& link_ids, std::uint64_t epoch,
                             const std::string& why) {
  impl_->reactor.run([&] {
    for (const std::uint64_t link_id : link_ids) {
      const auto found = impl_->links.find(link_id);
      if (found == impl_->links.end() || found->second.origin.epoch != epoch) continue;
      found->second.inbound->end(why);
      found->second.inbound->confirm_quiesced();
    }
    impl_->collect();
  });
}

// Only links that their senders have to stop take any time, and hardly any: asked for often, it
// needs nobody to wake who waits.
bool Acceptor::await_quiesced(const std::function<bool(std::uint64_t, const Origin&)>& is_meant,
                              Nanos deadline) {
  while (true) {
    bool is_quiesced = true;
    impl_->reactor.run([&] {
      for (const auto& [id, link] : impl_->links) {
        if (link.inbound->is_ended() && is_meant(id, link.origin)) {
          is_quiesced &= link.inbound->is_quiesced();
        }
      }
    });
    if (is_quiesced || now() >= deadline) return is_quiesced;
    std::this_thread::sleep_for(kLookAgain);
  }
}

std::vector<InboundInfo> Acceptor::links() {
  std::vector<InboundInfo> out;
  impl_->reactor.run([&] {
    for (const auto& [id, link] : impl_->links) {
      const Inbound& inbound = *link.inbound;
      if (inbound.is_quiesced()) continue;
      const bool is_ended = inbound.is_ended();
      out.push_back({id, inbound.transport(), link.origin, link.is_open(), is_ended,
                     is_ended ? inbound.why_ended() : std::string()});
    }
  });
  return out;
}

void Acceptor::settle() {
  impl_->reactor.run([&] {
    for (auto& [id, link] : impl_->links) link.inbound->settle();
  });
}

std::vector<EndedLink> Acceptor::take_ended() {
  std::vector<EndedLink> out;
  impl_->reactor.run([&] {
    out.assign(impl_->ended.begin(), impl_->ended.end());
    impl_->ended.clear();
    impl_->has_ended.drain();
  });
  return out;
}

int Acceptor::ended_fd() const noexcept { return impl_->has_ended.get(); }

}  // namespace rdma_kv::transport::stream
