#include "transport/stream/side_stream.h"

#include <cerrno>
#include <string>

#include "transport/stream/frames.h"
#include "transport/stream/hello.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"

namespace rdma_kv::transport::stream {

struct SideStream::Impl {
  explicit Impl(const RemoteEnd& remote) : fd(open_stream(remote, 0, 1)), path(path_of(fd.get())) {}

  // Each noexcept caller may meet exhausted memory here; the link is lost all the same.
  void lose(const char* call, int err) {
    if (!is_broken) cause = {Errc::kPeerLost, lost_text(call, err, path)};
    is_broken = true;
    is_gone |= is_reset(err);
  }
  void lose(std::string what) {
    if (!is_broken) cause = {Errc::kPeerLost, std::move(what)};
    is_broken = true;
  }

  bool send(const SmallFrame& frame) {
    if (is_broken) return false;
    if (!outbox.push(frame)) {
      lose(join("the peer does not read from stream ", path, "; is it stopped?"));
      return false;
    }
    flush();
    return !is_broken;
  }

  void flush() {
    if (outbox.flush(fd.get()) != Io::kError) return;
    const int err = errno;
    // What the peer said before it closed (ENDED, acknowledgements) is still to be read.
    if (is_reset(err)) {
      is_mute = true;
    } else {
      lose("send", err);
    }
  }

  // False when the inbox is empty and the socket has no more.
  bool receive() {
    switch (inbox.fill(fd.get())) {
      case Io::kDone:
        return true;
      case Io::kBlocked:
        if (is_mute) lose("send", EPIPE);
        return false;
      case Io::kEof:
        lose(closed_text(path));
        is_gone = true;
        return false;
      case Io::kError: {
        const int err = errno;
        lose("recv", err);
        return false;
      }
    }
    return false;
  }

  // True when `frame` acknowledged a notice.
  bool take(const Frame& frame) {
    // A peer that floods this side with answers must not keep it here: each is asked for.
    if (frame.header.type == FrameType::kAck && awaited > 0) {
      --awaited;
      return true;
    }
    if (frame.header.type == FrameType::kEnded && !is_ended) {
      is_ended = true;
    } else {
      lose(join("unexpected ", name_of(frame.header.type), " on stream ", path,
                "; do both sides run the same version?"));
    }
    return false;
  }

  UniqueFd fd;
  std::string path;
  Inbox inbox;
  Outbox outbox;
  Failure cause;
  std::uint64_t awaited = 0;  // notices that are not acknowledged
  bool is_mute = false;       // the peer takes no more
  bool is_ended = false;
  bool is_broken = false;
  bool is_gone = false;
};

SideStream::SideStream(const RemoteEnd& remote) : impl_(std::make_unique<Impl>(remote)) {}

SideStream::~SideStream() { shut_and_close(impl_->fd); }

int SideStream::fd() const noexcept { return impl_->fd.get(); }

bool SideStream::has_unsent() const noexcept {
  return !impl_->outbox.empty() && !impl_->is_mute && !impl_->is_broken;
}

bool SideStream::send_notice(std::uint64_t transfer, std::uint32_t tag) noexcept {
  if (!impl_->send(encode_notice(transfer, tag))) return false;
  ++impl_->awaited;
  return true;
}

void SideStream::expect_ack() noexcept { ++impl_->awaited; }

bool SideStream::send_end() noexcept { return impl_->send(encode_plain(FrameType::kEnd, 0)); }

std::size_t SideStream::progress(std::uint64_t* out, std::size_t most) noexcept {
  if (!impl_->is_broken && !impl_->is_mute) impl_->flush();
  std::size_t acknowledged = 0;
  while (acknowledged < most && !impl_->is_broken) {
    Frame frame{};
    switch (impl_->inbox.next(frame)) {
      case Inbox::Next::kFrame:
        if (impl_->take(frame)) out[acknowledged++] = frame.header.transfer;
        break;
      case Inbox::Next::kNeedMore:
        if (!impl_->receive()) return acknowledged;
        break;
      case Inbox::Next::kNonsense:
        impl_->lose(
            join("nonsense on stream ", impl_->path, "; do both sides run the same version?"));
        break;
    }
  }
  return acknowledged;
}

bool SideStream::is_ended() const noexcept { return impl_->is_ended; }
bool SideStream::is_gone() const noexcept { return impl_->is_gone; }
bool SideStream::is_broken() const noexcept { return impl_->is_broken; }
Failure SideStream::failure() const { return impl_->cause; }

}  // namespace rdma_kv::transport::stream
