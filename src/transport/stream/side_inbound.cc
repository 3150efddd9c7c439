// The receiver's end of a side stream.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "transport/notice_gate.h"
#include "transport/stream/acceptor.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"

namespace rdma_kv::transport::stream {
namespace {

// Frames answered in one turn of the reactor, so that one sender of notices cannot starve others.
constexpr int kFramesPerTurn = 256;

class SideInbound : public StreamInbound {
 public:
  SideInbound(Reactor& reactor, NoticeSink& sink, Origin origin, const char* transport,
              std::function<void()> end_path, Nanos wait_for_peer)
      : reactor_(reactor),
        origin_(std::move(origin)),
        gate_(reactor, sink, origin_, [this] { serve(); }),
        transport_(transport),
        end_path_(std::move(end_path)),
        wait_for_peer_(wait_for_peer) {}

  ~SideInbound() override { end("the data port was closed"); }

  bool attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept override {
    if (is_ended_ || stream_ || index != 0 || count != 1) return false;
    try {
      path_ = path_of(stream.get());
      reactor_.add(stream.get(), EPOLLIN, [this](std::uint32_t) { serve(); });
    } catch (const std::exception& error) {
      log(LogLevel::kError, join(transport_, " link of ", origin_.name, ": ", error.what()));
      return false;
    }
    stream_ = std::move(stream);
    return true;
  }

  void end(const std::string& why) noexcept override {
    if (!finish()) return;
    if (stream_ && wait_for_peer_ > 0) confirm();
    shut_and_close(stream_);
    log(LogLevel::kDebug, join("ended the ", transport_, " link of ", origin_.name, ": ", why));
  }

  bool is_ended() const noexcept override { return is_ended_; }
  const char* transport() const noexcept override { return transport_; }

 private:
  // Nothing can land when it returns. False when it had been done before.
  bool finish() noexcept {
    if (std::exchange(is_ended_, true)) return false;
    if (stream_) reactor_.remove(stream_.get());
    if (end_path_) std::exchange(end_path_, nullptr)();
    return true;
  }

  void close_after_peer(const std::string& why, LogLevel level) noexcept {
    if (!finish()) return;
    log(level, join("the ", transport_, " link of ", origin_.name, " ended: ", why));
    shut_and_close(stream_);
  }

  void confirm() noexcept {
    const Nanos deadline = now() + wait_for_peer_;
    (void)::shutdown(stream_.get(), SHUT_WR);
    char scrap[512];
    while (wait_for(stream_.get(), POLLIN, deadline)) {
      const ssize_t got = ::recv(stream_.get(), scrap, sizeof scrap, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && is_reset(errno))) return;
      if (now() >= deadline) break;
    }
    log(LogLevel::kError,
        join("ending the ", transport_, " link of ", origin_.name, " (", path_,
             "): the sender did not confirm within ", static_cast<double>(wait_for_peer_) / 1e9,
             " s that it has stopped; it may still write into this process. Is it stopped? End it "
             "before this memory is used for anything else"));
  }

  void serve() noexcept {
    if (is_ended_ || !stream_) return;
    if (outbox_.flush(stream_.get()) == Io::kError) return lose_by("send", errno);
    Frame frame{};
    for (int i = 0;
         i < kFramesPerTurn && outbox_.room() >= kHeaderBytes + kWordBytes && gate_.is_open();
         ++i) {
      const auto next = inbox_.next(frame);
      if (next == Inbox::Next::kNonsense) return nonsense("nonsense");
      if (next == Inbox::Next::kNeedMore) {
        const Io io = inbox_.fill(stream_.get());
        if (io == Io::kBlocked) break;
        if (io == Io::kEof) return close_after_peer(closed_text(path_), LogLevel::kInfo);
        if (io == Io::kError) return lose_by("recv", errno);
        continue;
      }
      if (!answer(frame)) return;
    }
    const Io io = outbox_.flush(stream_.get());
    if (io == Io::kError) return lose_by("send", errno);
    watch(io == Io::kBlocked);
  }

  // False when the link ended by it.
  bool answer(const Frame& frame) noexcept {
    if (frame.header.type == FrameType::kNotice) {
      if (const auto tag = decode_word(frame.body); tag && *tag != 0) gate_.deliver(*tag);
      (void)outbox_.push(encode_ack(frame.header.transfer, AckStatus::kApplied));
      return true;
    }
    if (frame.header.type != FrameType::kEnd) {
      nonsense(name_of(frame.header.type));
      return false;
    }
    if (!finish()) return false;
    (void)outbox_.push(encode_plain(FrameType::kEnded, 0));
    (void)outbox_.flush(stream_.get());  // lost when it does not fit: the closing says the same
    shut_and_close(stream_);
    log(LogLevel::kDebug, join("the ", transport_, " link of ", origin_.name, " ended in order"));
    return false;
  }

  // While answers wait nothing more is read: whoever asks must also listen. Frames left in the
  // inbox by a turn that was cut short are announced by no EPOLLIN, so they wait for EPOLLOUT too.
  // A link that is held up hears at most once that its stream was reset.
  void watch(bool is_blocked) noexcept {
    const bool wants_out = is_blocked || inbox_.has_frame();
    const std::uint32_t events = !gate_.is_open() ? EPOLLONESHOT : wants_out ? EPOLLOUT : EPOLLIN;
    if (std::exchange(watched_, events) == events) return;
    reactor_.modify(stream_.get(), events);
  }

  void lose_by(const char* call, int err) noexcept {
    close_after_peer(lost_text(call, err, path_), LogLevel::kInfo);
  }

  void nonsense(const char* what) noexcept {
    close_after_peer(
        join("unexpected ", what, " on stream ", path_, "; do both sides run the same version?"),
        LogLevel::kWarning);
  }

  Reactor& reactor_;
  const Origin origin_;
  NoticeGate gate_;
  const char* const transport_;
  std::function<void()> end_path_;
  const Nanos wait_for_peer_;
  UniqueFd stream_;
  std::string path_;
  Inbox inbox_;
  Outbox outbox_;
  std::uint32_t watched_ = EPOLLIN;
  bool is_ended_ = false;
};

}  // namespace

std::unique_ptr<StreamInbound> make_side_inbound(Reactor& reactor, NoticeSink& sink, Origin origin,
                                                 const char* transport,
                                                 std::function<void()> end_path,
                                                 Nanos wait_for_peer) {
  return std::make_unique<SideInbound>(reactor, sink, std::move(origin), transport,
                                       std::move(end_path), wait_for_peer);
}

}  // namespace rdma_kv::transport::stream
