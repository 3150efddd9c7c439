#include "transport/tcp/inbound.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "transport/notice_gate.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"
#include "transport/tcp/limits.h"
#include "transport/tcp/part_receiver.h"

namespace rdma_kv::transport::tcp {
namespace {

using stream::AckStatus;
using Event = PartReceiver::Event;

struct Stream {
  Stream(UniqueFd stream, const kv::Mapping& mapping)
      : fd(std::move(stream)), path(stream::path_of(fd.get())), receiver(mapping) {}

  UniqueFd fd;
  std::string path;
  PartReceiver receiver;
  stream::Outbox outbox;
  std::uint32_t watched = EPOLLIN;
};

// A write in several parts of which not all are applied.
struct HalfArrived {
  std::uint64_t transfer;
  std::uint32_t tag;
  std::uint16_t parts;
  std::uint64_t begun = 0;    // one bit per part
  std::uint64_t applied = 0;  // one bit per part
};

std::uint64_t all_parts(std::uint16_t parts) noexcept {
  return parts == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << parts) - 1;
}

class TcpInbound final : public stream::StreamInbound {
 public:
  TcpInbound(Reactor& reactor, NoticeSink& sink, Origin origin, kv::Mapping mapping,
             std::uint16_t streams)
      : reactor_(reactor),
        origin_(std::move(origin)),
        gate_(reactor, sink, origin_, [this] { resume(); }),
        mapping_(std::move(mapping)),
        streams_(streams) {
    half_.reserve(stream::kMostHalfArrived);
  }

  ~TcpInbound() override { end("the data port was closed"); }

  bool attach(UniqueFd fd, std::uint16_t index, std::uint16_t count) noexcept override {
    if (is_ended_ || count != streams_.size() || index >= count || streams_[index]) return false;
    try {
      auto stream = std::make_unique<Stream>(std::move(fd), mapping_);
      reactor_.add(stream->fd.get(), EPOLLIN, [this, index](std::uint32_t) { guarded(index); });
      streams_[index] = std::move(stream);
    } catch (const std::exception& error) {
      log(LogLevel::kError, join("tcp link of ", origin_.name, ": ", error.what()));
      return false;
    }
    return true;
  }

  void end(const std::string& why) noexcept override { finish(why, LogLevel::kDebug); }
  bool is_ended() const noexcept override { return is_ended_; }
  std::string why_ended() const override { return why_; }
  const char* transport() const noexcept override { return "tcp"; }

 private:
  void finish(const std::string& why, LogLevel level) noexcept {
    if (std::exchange(is_ended_, true)) return;
    why_ = why;
    // First nothing is read any more; the closing, which tells the sender so, comes last.
    for (const auto& stream : streams_) {
      if (stream) reactor_.remove(stream->fd.get());
    }
    log(level, join("the tcp link of ", origin_.name, " ended: ", why));
    for (const auto& stream : streams_) {
      if (stream) stream::shut_and_close(stream->fd);
    }
    tell_end();
  }

  void nonsense(const Stream& stream, const char* what) noexcept {
    finish(join("the peer sent ", what, " on stream ", stream.path,
                "; do both sides run the same version?"),
           LogLevel::kWarning);
  }

  // Memory that runs out ends this link and no other.
  void guarded(std::uint16_t index) noexcept {
    try {
      serve(index);
    } catch (const std::exception& error) {
      finish(error.what(), LogLevel::kError);
    }
  }

  void serve(std::uint16_t index) {
    if (is_ended_) return;
    Stream& stream = *streams_[index];
    std::size_t turn = kReceiveTurnBytes;
    // Whoever writes must also listen: without room for an answer nothing more is read.
    const auto may_go_on = [&] {
      if (!gate_.is_open()) return false;
      return stream.outbox.room() >= stream::kHeaderBytes + stream::kWordBytes ||
             (stream.outbox.flush(stream.fd.get()) == stream::Io::kDone);
    };
    while (may_go_on()) {
      const Event event = stream.receiver.advance(stream.fd.get(), turn);
      if (event == Event::kBlocked || event == Event::kTurn) break;
      if (!handle(stream, event)) return;
    }
    const stream::Io io = stream.outbox.flush(stream.fd.get());
    if (io == stream::Io::kError) {
      return finish(stream::lost_text("send", errno, stream.path), LogLevel::kInfo);
    }
    // A link that is held up hears at most once that its stream was reset.
    const std::uint32_t events = !gate_.is_open()             ? EPOLLONESHOT
                                 : io == stream::Io::kBlocked ? EPOLLOUT
                                                              : EPOLLIN;
    if (std::exchange(stream.watched, events) != events) {
      reactor_.modify(stream.fd.get(), events);
    }
  }

  // What was received before the link was held up is announced by nobody.
  void resume() noexcept {
    for (std::size_t index = 0; index < streams_.size(); ++index) {
      if (streams_[index]) guarded(static_cast<std::uint16_t>(index));
    }
  }

  // False when the link ended by it.
  bool handle(Stream& stream, Event event) {
    const std::uint64_t transfer = stream.receiver.transfer();
    switch (event) {
      case Event::kBegun:
        return begin_part(stream);
      case Event::kApplied:
        apply_part(stream);
        return true;
      case Event::kAbort:
        stream.receiver.drop_part();
        std::erase_if(half_, [&](const HalfArrived& half) { return half.transfer == transfer; });
        (void)stream.outbox.push(stream::encode_ack(transfer, AckStatus::kAborted));
        return true;
      case Event::kNotice:
        deliver(stream, transfer, stream.receiver.tag());
        return true;
      case Event::kEnd:
        (void)stream.outbox.push(stream::encode_plain(stream::FrameType::kEnded, 0));
        (void)stream.outbox.flush(stream.fd.get());  // if not, the closing says the same
        finish("in order", LogLevel::kDebug);
        return false;
      case Event::kEof:
        finish(stream::closed_text(stream.path), is_idle() ? LogLevel::kDebug : LogLevel::kInfo);
        return false;
      case Event::kError:
        finish(stream::lost_text("recvmsg", errno, stream.path), LogLevel::kInfo);
        return false;
      default:
        nonsense(stream, stream.receiver.complaint());
        return false;
    }
  }

  bool is_idle() const noexcept {
    return half_.empty() && std::all_of(streams_.begin(), streams_.end(), [](const auto& stream) {
             return !stream || stream->receiver.is_at_boundary();
           });
  }

  HalfArrived* find(std::uint64_t transfer) noexcept {
    for (HalfArrived& half : half_) {
      if (half.transfer == transfer) return &half;
    }
    return nullptr;
  }

  bool begin_part(const Stream& stream) {
    const stream::WriteHead& head = stream.receiver.head();
    if (head.parts == 1) return true;
    if (head.parts > streams_.size()) {
      nonsense(stream, "a write in more parts than the link has streams");
      return false;
    }
    HalfArrived* half = find(stream.receiver.transfer());
    if (!half) {
      if (half_.size() == stream::kMostHalfArrived) {
        nonsense(stream, "parts of too many writes at once");
        return false;
      }
      half =
          &half_.emplace_back(HalfArrived{stream.receiver.transfer(), head.tag, head.parts, 0, 0});
    }
    const std::uint64_t bit = std::uint64_t{1} << head.part;
    if (half->tag != head.tag || half->parts != head.parts || (half->begun & bit) != 0) {
      nonsense(stream, "parts of one write that do not fit each other");
      return false;
    }
    half->begun |= bit;
    return true;
  }

  void apply_part(Stream& stream) {
    const stream::WriteHead& head = stream.receiver.head();
    const std::uint64_t transfer = stream.receiver.transfer();
    if (head.parts > 1) {
      // Not there when another stream has aborted the write: then this one will say so too.
      HalfArrived* const half = find(transfer);
      if (!half) return;
      half->applied |= std::uint64_t{1} << head.part;
      if (half->applied != all_parts(half->parts)) return;
      half_.erase(half_.begin() + (half - half_.data()));
    }
    deliver(stream, transfer, head.tag);
  }

  void deliver(Stream& stream, std::uint64_t transfer, std::uint32_t tag) {
    if (tag != 0) gate_.deliver(tag);
    (void)stream.outbox.push(stream::encode_ack(transfer, AckStatus::kApplied));
  }

  Reactor& reactor_;
  const Origin origin_;
  NoticeGate gate_;
  const kv::Mapping mapping_;
  std::vector<std::unique_ptr<Stream>> streams_;  // by index; empty until it came
  std::vector<HalfArrived> half_;
  std::string why_;
  bool is_ended_ = false;
};

}  // namespace

std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, kv::Mapping mapping,
                                                    std::uint16_t streams) {
  if (streams < 1 || streams > stream::kMostStreams) {
    throw Error(Errc::kValue, join(streams, " TCP streams; must be 1..", stream::kMostStreams));
  }
  return std::make_unique<TcpInbound>(reactor, sink, std::move(origin), std::move(mapping),
                                      streams);
}

}  // namespace rdma_kv::transport::tcp
