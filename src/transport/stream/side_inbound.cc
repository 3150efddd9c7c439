// The receiver's end of a side stream.
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
              std::function<void()> end_path, Stops stops, UniqueFd sender)
      : reactor_(reactor),
        origin_(std::move(origin)),
        gate_(reactor, sink, origin_, [this] { serve(); }),
        transport_(transport),
        end_path_(std::move(end_path)),
        stops_(stops),
        sender_(std::move(sender)) {}

  ~SideInbound() override {
    end("the data port was closed");
    if (is_quiesced_) return;
    stop_watching();
    log(LogLevel::kError,
        join("the ", transport_, " link of ", origin_.name, " (", path_,
             ") was ended, but its sender did not confirm that it has stopped: it may still write "
             "into this process. Is it stopped? End it before this memory is used for anything "
             "else"));
  }

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
    if (!finish(why)) return;
    log(LogLevel::kDebug, join("ended the ", transport_, " link of ", origin_.name, ": ", why));
    if (stream_ && stops_ == Stops::kAtTheSender) {
      begin_confirming();
    } else {
      quiesce();
    }
    tell_end();
  }

  void confirm_quiesced() noexcept override {
    if (is_quiesced_) return;
    quiesce();
    tell_end();
  }

  bool is_ended() const noexcept override { return is_ended_; }
  bool is_quiesced() const noexcept override { return is_quiesced_; }
  std::string why_ended() const override { return why_; }
  const char* transport() const noexcept override { return transport_; }

 private:
  // Nothing more is taken. False when it had been done before.
  bool finish(const std::string& why) noexcept {
    if (std::exchange(is_ended_, true)) return false;
    why_ = why;
    if (stream_) reactor_.remove(stream_.get());
    if (end_path_) std::exchange(end_path_, nullptr)();
    return true;
  }

  void quiesce() noexcept {
    stop_watching();
    shut_and_close(stream_);
    is_quiesced_ = true;
  }

  void stop_watching() noexcept {
    if (stream_) reactor_.remove(stream_.get());
    if (std::exchange(is_sender_watched_, false)) reactor_.remove(sender_.get());
  }

  // Where its stream does not tell, the end of its process does.
  void watch_sender() noexcept {
    if (!sender_) return;
    try {
      reactor_.add(sender_.get(), EPOLLIN, [this](std::uint32_t) { confirm_quiesced(); });
      is_sender_watched_ = true;
    } catch (const std::exception& error) {  // stays unquiesced
      log(LogLevel::kError, join(transport_, " link of ", origin_.name, ": ", error.what()));
    }
  }

  // The sender has closed the stream, or said that it ends the link: it writes no more.
  void close_after_peer(const std::string& why, LogLevel level) noexcept {
    if (!finish(why)) return;
    log(level, join("the ", transport_, " link of ", origin_.name, " ended: ", why));
    quiesce();
    tell_end();
  }

  // The sender sees our half closed, stops, and closes its own.
  void begin_confirming() noexcept {
    (void)::shutdown(stream_.get(), SHUT_WR);
    watch_sender();  // a child of the sender may hold the stream open for longer than it lives
    try {
      reactor_.add(stream_.get(), EPOLLIN, [this](std::uint32_t) { confirm(); });
    } catch (const std::exception& error) {  // stays unquiesced
      log(LogLevel::kError, join(transport_, " link of ", origin_.name, ": ", error.what()));
    }
  }

  void confirm() noexcept {
    char scrap[4096];
    const ssize_t got = ::recv(stream_.get(), scrap, sizeof scrap, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;
    if (got == 0 || is_reset(errno)) return confirm_quiesced();
    reactor_.remove(stream_.get());
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
    if (!finish("the peer ended it")) return false;
    (void)outbox_.push(encode_plain(FrameType::kEnded, 0));
    (void)outbox_.flush(stream_.get());  // lost when it does not fit: the closing says the same
    quiesce();
    tell_end();
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

  // The kernel tells of an error once, and from then on of an end that the peer did not make: after
  // a timeout nobody can say any more whether the sender has stopped.
  void lose_by(const char* call, int err) noexcept {
    const std::string why = lost_text(call, err, path_);
    if (stops_ == Stops::kHere || is_reset(err)) return close_after_peer(why, LogLevel::kInfo);
    if (!finish(why)) return;
    log(LogLevel::kWarning, join("the ", transport_, " link of ", origin_.name, " ended: ", why));
    watch_sender();
    tell_end();
  }

  void nonsense(const char* what) noexcept {
    const std::string why =
        join("unexpected ", what, " on stream ", path_, "; do both sides run the same version?");
    log(LogLevel::kWarning, join("the ", transport_, " link of ", origin_.name, " ended: ", why));
    end(why);
  }

  Reactor& reactor_;
  const Origin origin_;
  NoticeGate gate_;
  const char* const transport_;
  std::function<void()> end_path_;
  const Stops stops_;
  const UniqueFd sender_;  // a pidfd
  UniqueFd stream_;
  std::string path_;
  Inbox inbox_;
  Outbox outbox_;
  std::string why_;
  std::uint32_t watched_ = EPOLLIN;
  bool is_ended_ = false;
  bool is_quiesced_ = false;
  bool is_sender_watched_ = false;
};

}  // namespace

std::unique_ptr<StreamInbound> make_side_inbound(Reactor& reactor, NoticeSink& sink, Origin origin,
                                                 const char* transport,
                                                 std::function<void()> end_path, Stops stops,
                                                 UniqueFd sender) {
  return std::make_unique<SideInbound>(reactor, sink, std::move(origin), transport,
                                       std::move(end_path), stops, std::move(sender));
}

}  // namespace rdma_kv::transport::stream
