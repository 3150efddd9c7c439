// Fuzzes the data port of decode; run by `scripts/fuzz data_port`.
//
// Strangers connect, say nothing, half a HELLO, a wrong one or the right one, and go on as they
// like; links are expected and ended meanwhile. Whatever comes: a stream is let in exactly when its
// first 60 bytes are the HELLO of a link that is expected, for an index that has not come yet;
// nobody else makes a notice or changes a byte; strangers are few, and do not stay; in the end all
// are closed.
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/log.h"
#include "cache.h"
#include "frames.h"
#include "input.h"
#include "kv/mapping.h"
#include "model.h"
#include "network.h"
#include "notices.h"
#include "reactor.h"
#include "transport/stream/acceptor.h"
#include "transport/tcp/inbound.h"

namespace fuzz {
namespace {

namespace kv = rdma_kv::kv;
namespace transport = rdma_kv::transport;

constexpr std::uint64_t kEpoch = 0x1122334455667788;
constexpr std::size_t kMostSteps = 150;
constexpr std::size_t kMostConnections = 150;
constexpr std::size_t kMostStrangers = 64;
constexpr std::size_t kMostLinks = 8;
constexpr std::size_t kHello = 60;
constexpr std::int64_t kPatience = 5'000'000'000;
constexpr std::int64_t kTicketLife = 20'000'000'000;

using Bytes = std::vector<std::uint8_t>;

using transport::stream::Stops;

struct Expected {
  transport::stream::Ticket ticket;
  std::uint16_t streams;
  std::uint64_t epoch;
  bool is_tcp;
  Stops stops;
  std::set<std::uint16_t> arrived;
  bool is_over = false;  // ended here, or perhaps by time, or by a stream that ended
};

struct Connection {
  int fd;
  std::int64_t since;
  bool is_welcome = false;
  std::size_t link = 0;
};

// What a HELLO says, read from its bytes.
struct Claim {
  bool is_hello;
  std::uint16_t version, index, count;
  std::uint64_t link_id, epoch;
  Bytes token;
};

std::uint64_t number(const Bytes& bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{bytes[at + i]} << 8 * i;
  return value;
}

Claim read_claim(const Bytes& bytes) {
  static const Bytes kStart = {1, 0, 0, 0, 44, 0, 0, 0};
  const bool is_hello = std::equal(kStart.begin(), kStart.end(), bytes.begin()) &&
                        std::memcmp(bytes.data() + 16, "RKVS", 4) == 0;
  return {is_hello,
          static_cast<std::uint16_t>(number(bytes, 20, 2)),
          static_cast<std::uint16_t>(number(bytes, 22, 2)),
          static_cast<std::uint16_t>(number(bytes, 24, 2)),
          number(bytes, 28, 8),
          number(bytes, 52, 8),
          Bytes(bytes.begin() + 36, bytes.begin() + 52)};
}

class Run {
 public:
  Run(Input input, const Shape& shape)
      : input_(input), shape_(shape), cache_(shape.decode(), 1), before_(cache_.contents()) {
    acceptor_ = std::make_unique<transport::stream::Acceptor>(reactor_, "10.0.0.1", 4);
    acceptor_->set_epoch(kEpoch);
  }

  void play() {
    expect(1, true);
    for (std::size_t i = 0; i < kMostSteps && !input_.is_empty(); ++i) {
      step();
      if (!is_holding_) settle();
    }
    notices_.make_room();
    settle();
    check_places();
    acceptor_->close();
    for (const int fd : network::sockets()) MUST(network::at(fd).is_closed);
  }

 private:
  void step() {
    const std::uint8_t what = input_.u8();
    const std::size_t choice = what / 16;
    Connection* const connection =
        connections_.empty()
            ? nullptr
            : &connections_[connections_.size() - 1 - choice % connections_.size()];
    switch (what % 16) {
      case 0:
        return connect(1);
      case 1:
        return arrive(connection, [&] { return say(Say::kRaw); });
      case 2:
        return arrive(connection, [&] { return hello(); });
      case 3:
        return arrive(connection, [&] { return say(static_cast<Say>(input_.u8() % 9)); });
      case 4:
        return expect(static_cast<std::uint16_t>(1 + choice % 4), choice / 4 % 2 == 0,
                      choice / 8 % 2 == 0 ? Stops::kHere : Stops::kAtTheSender);
      case 5:
        network::pass(std::int64_t{input_.u16()} * 1'000'000);
        run_periodic_tasks();
        return check_patience();
      case 6:
        return end_link(choice);
      case 7:
        (void)acceptor_->end_epoch(7 + choice % 2, "the input says so", 0);
        for (Expected& link : links_) link.is_over |= link.epoch == 7 + choice % 2;
        return;
      case 8:
        if (connection) network::at(connection->fd).has_ended = true;
        return;
      case 9:
        if (connection && network::at(connection->fd).broken == 0) {
          network::at(connection->fd).broken = choice % 2 == 0 ? ECONNRESET : ETIMEDOUT;
        }
        return;
      case 10:
        if (connection) network::at(connection->fd).room = input_.u16();
        return;
      case 11:
        return connect(input_.u8());
      case 12:
        is_holding_ = !is_holding_;
        return;
      case 13:
        return network::set_pace(input_.u8(), choice % 8);
      case 14:
        if (choice == 1) notices_.fill();
        if (choice == 2) notices_.make_room();
        (void)acceptor_->take_ended();
        for (const auto& info : acceptor_->links()) {
          MUST(info.link_id != 0);
          MUST(info.origin.epoch == 7 || info.origin.epoch == 8);
        }
        return;
      default:
        // A good one, from connecting to a write: what luck alone seldom finds.
        connect(1);
        if (!connections_.empty()) arrive(&connections_.back(), [&] { return good_hello(choice); });
    }
  }

  void connect(std::size_t count) {
    for (std::size_t i = 0; i < count && connections_.size() < kMostConnections; ++i) {
      connections_.push_back({network::connect_to_listener(), rdma_kv::now()});
    }
  }

  template <class Make>
  void arrive(Connection* connection, const Make& make) {
    const Bytes bytes = make();
    if (connection && !network::at(connection->fd).has_ended) {
      network::arrive(connection->fd, bytes);
    }
  }

  Bytes say(Say what) {
    static std::vector<Bytes> nowhere;
    const StreamModel nobody(shape_, nowhere);
    return fuzz::say(what, input_, shape_, nobody);
  }

  Bytes hello_to(const Expected& link, std::uint16_t index, std::uint8_t lie) {
    Bytes body = {'R', 'K', 'V', 'S'};
    put(body, (lie & 1) != 0 ? 2 : 1, 2);
    put(body, index, 2);
    put(body, link.streams + ((lie & 2) != 0 ? 1 : 0), 2);
    put(body, 0, 2);
    put(body, link.ticket.link_id ^ ((lie & 4) != 0 ? 1 : 0), 8);
    body.insert(body.end(), link.ticket.token.begin(), link.ticket.token.end());
    if ((lie & 8) != 0) body.back() ^= 1;
    put(body, kEpoch + ((lie & 16) != 0 ? 1 : 0), 8);
    return frame(1, 0, body);
  }

  Bytes hello() {
    const std::uint8_t which = input_.u8();
    const std::uint8_t lie = input_.u8();
    Bytes bytes = hello_to(links_[which % links_.size()], which / 16, lie);
    if ((lie & 32) != 0) bytes.resize(input_.u8() % kHello);
    return bytes;
  }

  Bytes good_hello(std::size_t choice) {
    const Expected& link = links_[choice % links_.size()];
    std::uint16_t index = 0;
    while (link.arrived.contains(index)) ++index;
    return hello_to(link, index, 0);
  }

  void expect(std::uint16_t streams, bool is_tcp, Stops stops = Stops::kHere) {
    if (links_.size() == kMostLinks) return;
    const transport::Origin origin{"peer", 7 + links_.size() % 2};
    if (is_tcp) {
      stops = Stops::kHere;
    } else {
      streams = 1;
    }
    auto inbound = is_tcp
                       ? transport::tcp::make_inbound(
                             reactor_, notices_, origin,
                             kv::Mapping::into_decode(shape_.prefill(), cache_.layout()), streams)
                       : transport::stream::make_side_inbound(
                             reactor_, notices_, origin, "other", [] {}, stops);
    const auto ticket = acceptor_->expect(std::move(inbound), origin, streams, kTicketLife);
    MUST(ticket.link_id != 0);
    links_.push_back({ticket, streams, origin.epoch, is_tcp, stops, {}, false});
  }

  void end_link(std::size_t choice) {
    Expected& link = links_[choice % links_.size()];
    const bool is_quiesced = acceptor_->end(link.ticket.link_id, "the input says so", 0);
    MUST(is_quiesced || link.stops == Stops::kAtTheSender);
    link.is_over = true;
    for (const Connection& connection : connections_) {
      if (!connection.is_welcome || connection.link != choice % links_.size()) continue;
      const network::Socket& socket = network::at(connection.fd);
      MUST(socket.is_closed == is_quiesced);
      MUST(socket.is_closed || socket.is_shut_for_writing || socket.broken != 0);
    }
  }

  // One connection after the other, as the handlers ran: the order decides who is let in.
  void settle() {
    run_handlers([&](int fd) {
      for (Connection& connection : connections_) {
        if (connection.fd == fd) check(connection);
      }
    });
    std::size_t strangers = 0;
    for (const Connection& connection : connections_) {
      strangers += connection.is_welcome || network::at(connection.fd).is_closed ? 0 : 1;
    }
    MUST(strangers <= kMostStrangers);
    for (const Connection& connection : connections_) check_confirmed(connection);
    for (const std::uint64_t epoch : notices_.epochs) MUST(epochs_.contains(epoch));
  }

  void check(Connection& connection) {
    const network::Socket& socket = network::at(connection.fd);
    if (connection.is_welcome || socket.read < kHello) return;
    const Claim claim = read_claim(socket.arriving);
    Expected* const link = link_of(claim);
    const bool is_let_in = socket.sent.size() >= 16 && socket.sent[0] == 2;
    if (!is_let_in) {
      // A refusal is final; and nobody is refused who has every right, unless time was up.
      MUST(socket.is_closed);
      MUST(link == nullptr || link->is_over || is_late_ || socket.room != SIZE_MAX ||
           socket.broken != 0);
      if (link != nullptr) link->is_over = true;
      return;
    }
    MUST(link != nullptr);
    MUST(!link->is_over || is_late_);
    MUST(number(socket.sent, 16, 8) == kEpoch);
    link->arrived.insert(claim.index);
    epochs_.insert(link->epoch);
    connection.is_welcome = true;
    connection.link = static_cast<std::size_t>(link - links_.data());
    // From here on the link may end by what is said, and takes its other streams along.
    if (socket.is_closed) link->is_over = true;
  }

  // Where only the sender can stop the bytes, its stream is closed once it has said that it did.
  void check_confirmed(const Connection& connection) {
    if (!connection.is_welcome || links_[connection.link].stops == Stops::kHere) return;
    const network::Socket& socket = network::at(connection.fd);
    if (!socket.is_closed) return;
    const bool said_end = socket.sent.size() >= 16 && socket.sent[socket.sent.size() - 16] == 9;
    MUST(socket.has_ended || socket.broken == ECONNRESET || said_end);
  }

  // The link that this HELLO has every right to, or none.
  Expected* link_of(const Claim& claim) {
    if (!claim.is_hello || claim.version != 1 || claim.epoch != kEpoch) return nullptr;
    for (Expected& link : links_) {
      const Bytes token(link.ticket.token.begin(), link.ticket.token.end());
      if (claim.link_id != link.ticket.link_id || claim.token != token) continue;
      if (claim.count != link.streams || claim.index >= link.streams) return nullptr;
      if (link.arrived.contains(claim.index)) return nullptr;
      link.is_over |= has_closed_stream(link);
      return &link;
    }
    return nullptr;
  }

  bool has_closed_stream(const Expected& link) {
    for (const Connection& connection : connections_) {
      if (connection.is_welcome && &links_[connection.link] == &link &&
          (network::at(connection.fd).is_closed ||
           network::at(connection.fd).is_shut_for_writing)) {
        return true;
      }
    }
    return false;
  }

  void check_patience() {
    is_late_ |= rdma_kv::now() > kTicketLife;  // time began a little after 0
    if (is_holding_) return;
    for (const Connection& connection : connections_) {
      if (connection.is_welcome || connection.since + kPatience > rdma_kv::now()) continue;
      // The listener is asked at the next turn only.
      if (network::at(connection.fd).read == 0 && network::at(network::listener()).is_readable()) {
        continue;
      }
      MUST(network::at(connection.fd).is_closed);
    }
  }

  void check_places() {
    auto expected = before_;
    auto scratch = before_;
    const auto found = cache_.contents();
    for (const Connection& connection : connections_) {
      if (!connection.is_welcome || !links_[connection.link].is_tcp) continue;
      StreamModel stream(shape_, scratch);
      stream.deliver(std::span(network::at(connection.fd).arriving).subspan(kHello));
      for (auto event = stream.step();
           event != StreamModel::Event::kNeedsMore && event != StreamModel::Event::kNonsense;) {
        event = stream.step();
      }
      for (const Span& span : stream.allowed()) {
        for (std::size_t at = span.offset; at < span.offset + span.bytes; ++at) {
          expected[span.region][at] = found[span.region][at];
        }
      }
    }
    MUST(found == expected);
  }

  Input input_;
  const Shape& shape_;
  Cache cache_;
  const std::vector<Bytes> before_;
  rdma_kv::Reactor reactor_{"fuzz"};
  Notices notices_;
  std::unique_ptr<transport::stream::Acceptor> acceptor_;
  std::vector<Connection> connections_;
  std::vector<Expected> links_;
  std::set<std::uint64_t> epochs_;  // of links that somebody was let into
  bool is_late_ = false;            // a ticket may have expired
  bool is_holding_ = false;
};

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fuzz;
  network::reset();
  Input input(data, size);
  const Shape& shape = shapes()[input.u8() % 5];
  Run(input, shape).play();
  (void)rdma_kv::drain_log();
  return 0;
}
