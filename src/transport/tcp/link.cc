#include "transport/tcp/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "transport/stream/frames.h"
#include "transport/stream/hello.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"
#include "transport/tcp/limits.h"
#include "transport/tcp/part_sender.h"

namespace rdma_kv::transport::tcp {
namespace {

using stream::FrameType;
using stream::Io;

struct Stream {
  explicit Stream(UniqueFd fd) : sender(std::move(fd)) {}

  PartSender sender;
  stream::Inbox inbox;
  std::uint32_t watched = EPOLLIN;  // as epoll knows it
  bool is_gone = false;             // closed by the peer: nothing sent on it can land any more
  bool is_silent = false;           // lost without a sign that the peer has closed it
};

// A write that is not completed yet.
struct InFlight {
  std::uint64_t id;
  Write* write;
  std::uint64_t carriers = 0;        // streams that a part of it was given to, as bits
  std::uint64_t awaited_aborts = 0;  // streams whose ABORT is not acknowledged
  bool is_stopping = false;
};

class TcpLink final : public Link {
 public:
  TcpLink(const RemoteEnd& remote, std::uint16_t streams);
  ~TcpLink() override;

  Post post(Write& write) noexcept override;
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override { lose(std::move(cause)); }
  bool is_broken() const noexcept override { return is_broken_; }
  Failure failure() const override { return failure_; }
  Quiesce quiesce() noexcept override;
  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  LinkCounters counters() const noexcept override;
  std::size_t most_runs() const noexcept override { return stream::kMostRuns; }  // of one part
  const char* transport() const noexcept override { return "tcp"; }
  std::string describe() const override;

 private:
  void watch(Stream& stream, std::uint32_t events) noexcept;
  void unwatch(Stream& stream) noexcept;
  InFlight* find(std::uint64_t id) noexcept;
  void forget(InFlight& entry) noexcept;
  bool is_sent(const InFlight& entry) const noexcept;
  void begin(Write& write);
  Post send(std::size_t turn_bytes) noexcept;
  void receive(std::size_t index) noexcept;
  void take_frames(std::size_t index) noexcept;
  void take_ack(std::size_t index, const stream::Frame& frame) noexcept;
  void complete(InFlight& entry, bool is_abandoned) noexcept;
  void lose(Failure cause) noexcept;
  void lose(const char* call, int err, Stream& stream) noexcept;
  void begin_end() noexcept;
  void drain(Stream& stream) noexcept;

  const std::shared_ptr<const kv::Mapping> mapping_;
  UniqueFd epoll_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<InFlight> in_flight_;  // at most kMostInFlight, oldest mostly first
  std::vector<Write*> completed_;    // not yet handed to poll()'s caller
  std::vector<kv::Run> part_runs_;
  Write* current_ = nullptr;  // begun, and some of it unsent
  std::size_t next_stream_ = 0;
  std::uint64_t acks_ = 0;
  Failure failure_;
  bool is_broken_ = false;
  bool is_ending_ = false;
};

TcpLink::TcpLink(const RemoteEnd& remote, std::uint16_t streams)
    : mapping_(remote.mapping), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (streams < 1 || streams > stream::kMostStreams) {
    throw Error(Errc::kValue, join(streams, " TCP streams; must be 1..", stream::kMostStreams));
  }
  if (!epoll_) {
    const int err = errno;
    throw Error(Errc::kHandshake,
                join("epoll_create1: ", reason(err), "; is `ulimit -n` large enough?"));
  }
  in_flight_.reserve(kMostInFlight);
  completed_.reserve(kMostInFlight + 1);
  for (std::uint16_t i = 0; i < streams; ++i) {
    streams_.push_back(std::make_unique<Stream>(stream::open_stream(remote, i, streams)));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = i;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, streams_[i]->sender.fd(), &event) != 0) {
      const int err = errno;
      throw Error(Errc::kHandshake,
                  join("epoll_ctl: ", reason(err), ", for stream ", streams_[i]->sender.path()));
    }
  }
}

TcpLink::~TcpLink() {
  for (auto& stream : streams_) {
    if (!stream->is_gone) {
      // Unquiesced: at least what waits in our own kernel shall not be sent any more.
      const linger reset{1, 0};
      (void)::setsockopt(stream->sender.fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      stream->sender.owned_fd().reset();
    } else {
      stream::shut_and_close(stream->sender.owned_fd());
    }
  }
}

void TcpLink::watch(Stream& stream, std::uint32_t events) noexcept {
  if (stream.is_gone || stream.is_silent || stream.watched == events) return;
  epoll_event event{};
  event.events = events;
  for (std::uint32_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i].get() == &stream) event.data.u32 = i;
  }
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, stream.sender.fd(), &event) == 0) {
    stream.watched = events;
  }
}

// A closed stream stays readable for ever, which would keep a waiting thread awake.
void TcpLink::unwatch(Stream& stream) noexcept {
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, stream.sender.fd(), nullptr);
}

InFlight* TcpLink::find(std::uint64_t id) noexcept {
  for (InFlight& entry : in_flight_) {
    if (entry.id == id) return &entry;
  }
  return nullptr;
}

void TcpLink::forget(InFlight& entry) noexcept {
  in_flight_.erase(in_flight_.begin() + (&entry - in_flight_.data()));
}

bool TcpLink::is_sent(const InFlight& entry) const noexcept {
  return std::none_of(streams_.begin(), streams_.end(),
                      [&](const auto& stream) { return stream->sender.is_sending(entry.id); });
}

void TcpLink::complete(InFlight& entry, bool is_abandoned) noexcept {
  entry.write->is_abandoned = is_abandoned;
  completed_.push_back(entry.write);
  if (current_ == entry.write) current_ = nullptr;
  forget(entry);
}

// Splits a write by runs, cutting one where a part ends in it, so that parts differ by a block.
void TcpLink::begin(Write& write) {
  const kv::Plan& plan = *write.plan;
  const std::uint64_t most = std::min<std::uint64_t>(streams_.size(), plan.blocks());
  const auto parts = static_cast<std::uint16_t>(std::clamp<std::uint64_t>(
      plan.bytes() / kLeastPartBytes, 1, std::max<std::uint64_t>(most, 1)));
  in_flight_.push_back({write.id, &write});
  InFlight& entry = in_flight_.back();
  stream::WriteHead head{write.tag, plan.layers(), 0, 0, parts};
  std::size_t run = 0;
  std::uint32_t used = 0;  // blocks of that run
  std::uint64_t done = 0;
  for (; head.part < parts; ++head.part) {
    const std::uint64_t end = plan.blocks() * (head.part + std::uint64_t{1}) / parts;
    part_runs_.clear();
    while (done < end) {
      const kv::Run& from = plan.runs()[run];
      const auto take =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(from.count - used, end - done));
      part_runs_.push_back({from.src_block + used, from.dst_block + used, take});
      done += take;
      used += take;
      if (used == from.count) {
        ++run;
        used = 0;
      }
    }
    const std::size_t index = (next_stream_ + head.part) % streams_.size();
    streams_[index]->sender.begin(write.id, head, part_runs_, *mapping_);
    entry.carriers |= std::uint64_t{1} << index;
  }
  next_stream_ = (next_stream_ + parts) % streams_.size();
  current_ = &write;
}

Post TcpLink::post(Write& write) noexcept {
  if (is_broken_) return Post::kBroken;
  if (current_ != &write) {
    // What an abandoned write still has to say goes first.
    const Post rest = send(kSendTurnBytes);
    if (rest != Post::kPosted) return rest;
    if (in_flight_.size() == kMostInFlight) return Post::kQueueFull;
    begin(write);
  }
  const Post done = send(kSendTurnBytes);
  if (done == Post::kPosted) current_ = nullptr;
  return done;
}

Post TcpLink::send(std::size_t turn_bytes) noexcept {
  bool is_blocked = false;
  bool is_cut = false;
  const std::size_t share = std::max(turn_bytes / streams_.size(), kBatchBytes);
  for (const auto& stream : streams_) {
    if (stream->sender.is_idle()) continue;
    std::size_t left = share;
    switch (stream->sender.send(left)) {
      case PartSender::Sent::kAll:
        break;
      case PartSender::Sent::kBlocked:
        is_blocked = true;
        break;
      case PartSender::Sent::kTurn:
        is_cut = true;
        break;
      case PartSender::Sent::kError: {
        const int err = errno;
        lose("sendmsg", err, *stream);
        return Post::kBroken;
      }
    }
  }
  if (is_cut) return Post::kAgain;
  return is_blocked ? Post::kQueueFull : Post::kPosted;
}

void TcpLink::abandon(Write& write) noexcept {
  InFlight* const entry = find(write.id);
  if (!entry) {  // never begun
    const bool is_completed =
        std::find(completed_.begin(), completed_.end(), &write) != completed_.end();
    if (is_completed) return;
    write.is_abandoned = true;
    completed_.push_back(&write);
    return;
  }
  // Sent whole, or as good as: what is on its way cannot be called back, and ABORT would come after
  // it. It completes by its ACK; a peer that sends none is the engine's to break off.
  if (current_ != &write || is_broken_ || entry->is_stopping) return;
  bool can_stop = false;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if ((entry->carriers >> i) & 1) can_stop |= streams_[i]->sender.can_stop();
  }
  current_ = nullptr;  // what is left to send of it is sent by poll()
  if (!can_stop) return;
  entry->is_stopping = true;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    const std::uint64_t bit = std::uint64_t{1} << i;
    if ((entry->carriers & bit) != 0 && streams_[i]->sender.stop()) entry->awaited_aborts |= bit;
  }
  if (entry->awaited_aborts == 0) complete(*entry, true);
}

std::size_t TcpLink::poll(Completion* out, std::size_t most) noexcept {
  if (!is_broken_ && !is_ending_) {
    // What an abandoned write still has to say is sent by nobody else.
    if (!current_) (void)send(kSendTurnBytes);
    std::array<epoll_event, stream::kMostStreams> events;
    const int ready = ::epoll_wait(epoll_.get(), events.data(), events.size(), 0);
    for (int i = 0; i < ready && !is_broken_; ++i) receive(events[i].data.u32);
  }
  const std::size_t count = std::min(most, completed_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {completed_[i]};
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void TcpLink::receive(std::size_t index) noexcept {
  Stream& stream = *streams_[index];
  switch (stream.inbox.fill(stream.sender.fd())) {
    case Io::kDone:
      return take_frames(index);
    case Io::kBlocked:
      return;
    case Io::kEof:
      stream.is_gone = true;
      unwatch(stream);
      return lose({Errc::kPeerLost, stream::closed_text(stream.sender.path())});
    case Io::kError: {
      const int err = errno;
      return lose("recv", err, stream);
    }
  }
}

void TcpLink::take_frames(std::size_t index) noexcept {
  Stream& stream = *streams_[index];
  stream::Frame frame{};
  while (!is_broken_) {
    const auto next = stream.inbox.next(frame);
    if (next == stream::Inbox::Next::kNeedMore) return;
    if (next == stream::Inbox::Next::kFrame && frame.header.type == FrameType::kAck) {
      take_ack(index, frame);
    } else {
      const char* const what =
          next == stream::Inbox::Next::kFrame ? stream::name_of(frame.header.type) : "nonsense";
      return lose({Errc::kPeerLost, join("unexpected ", what, " on stream ", stream.sender.path(),
                                         "; do both sides run the same version?")});
    }
  }
}

void TcpLink::take_ack(std::size_t index, const stream::Frame& frame) noexcept {
  ++acks_;
  InFlight* const entry = find(frame.header.transfer);
  const std::uint64_t bit = std::uint64_t{1} << index;
  const auto status = stream::decode_word(frame.body).value_or(UINT32_MAX);
  // An ACK that comes before what it answers was sent is a lie: to believe it would give blocks
  // back from which bytes are still to be sent.
  if (entry && status == static_cast<std::uint32_t>(stream::AckStatus::kApplied) &&
      (entry->carriers & bit) != 0 && current_ != entry->write && !entry->is_stopping &&
      is_sent(*entry)) {
    return complete(*entry, false);
  }
  if (entry && status == static_cast<std::uint32_t>(stream::AckStatus::kAborted) &&
      (entry->awaited_aborts & bit) != 0 && !streams_[index]->sender.is_sending(entry->id)) {
    entry->awaited_aborts &= ~bit;
    if (entry->awaited_aborts == 0) complete(*entry, true);
    return;
  }
  lose({Errc::kPeerLost,
        join("an ACK (status ", status, ") for transfer ", frame.header.transfer,
             ", which does not wait for it, on stream ", streams_[index]->sender.path(),
             "; do both sides run the same version?")});
}

void TcpLink::lose(Failure cause) noexcept {
  if (!is_broken_) failure_ = std::move(cause);
  is_broken_ = true;
}

void TcpLink::lose(const char* call, int err, Stream& stream) noexcept {
  (stream::is_reset(err) ? stream.is_gone : stream.is_silent) = true;
  unwatch(stream);
  lose({Errc::kPeerLost, stream::lost_text(call, err, stream.sender.path())});
}

void TcpLink::begin_end() noexcept {
  is_ending_ = true;
  bool is_orderly = !is_broken_;
  for (const auto& stream : streams_) is_orderly &= stream->sender.is_idle() && !stream->is_gone;
  for (const auto& stream : streams_) {
    // A frame that was cut short ends in EOF, which ends the link at the receiver as well.
    stream->sender.discard();
    if (stream->is_gone || stream->is_silent) continue;
    if (is_orderly && stream == streams_.front()) {
      std::size_t turn = kSendTurnBytes;
      stream->sender.say_end();
      if (stream->sender.send(turn) == PartSender::Sent::kError && !stream::is_reset(errno)) {
        // The kernel tells of it once: what drain() would find next looks like the peer's closing.
        stream->is_silent = true;
        unwatch(*stream);
        continue;
      }
    }
    (void)::shutdown(stream->sender.fd(), SHUT_WR);
    watch(*stream, EPOLLIN);
  }
}

// Reads what the peer still says, until it has closed the stream; a peer that never stops talking
// gets its turn and no more.
void TcpLink::drain(Stream& stream) noexcept {
  char scrap[1024];
  for (int i = 0; i < kScrapsPerTurn && !stream.is_gone && !stream.is_silent; ++i) {
    const ssize_t got = ::recv(stream.sender.fd(), scrap, sizeof scrap, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    (got == 0 || stream::is_reset(errno) ? stream.is_gone : stream.is_silent) = true;
    unwatch(stream);
  }
}

Quiesce TcpLink::quiesce() noexcept {
  if (!is_ending_) begin_end();
  bool is_quiesced = true;
  for (const auto& stream : streams_) {
    drain(*stream);
    is_quiesced &= stream->is_gone;
  }
  return is_quiesced ? Quiesce::kQuiesced : Quiesce::kInProgress;
}

bool TcpLink::arm(bool wants_post) noexcept {
  if (is_ending_) return true;  // nobody collects what has completed
  if (!completed_.empty()) return false;
  if (is_broken_) return false;
  for (const auto& stream : streams_) {
    const bool wants_out = !stream->sender.is_idle() && (wants_post || !current_);
    watch(*stream, wants_out ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  return true;
}

LinkCounters TcpLink::counters() const noexcept {
  LinkCounters counters;
  for (const auto& stream : streams_) {
    counters.posts += stream->sender.calls();
    counters.work_requests += stream->sender.iovecs();
  }
  counters.completions = acks_;
  return counters;
}

std::string TcpLink::describe() const {
  return join("tcp: ", streams_.size(), streams_.size() == 1 ? " stream, " : " streams, first ",
              streams_.front()->sender.path());
}

}  // namespace

std::unique_ptr<Link> open(const RemoteEnd& remote, std::uint16_t streams) {
  return std::make_unique<TcpLink>(remote, streams);
}

}  // namespace rdma_kv::transport::tcp
