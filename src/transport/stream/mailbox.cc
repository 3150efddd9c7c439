#include "transport/stream/mailbox.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rdma_kv::transport::stream {

bool Outbox::push(Bytes frame) noexcept {
  if (frame.size() > room()) return false;
  if (end_ + frame.size() > bytes_.size()) {
    std::memmove(bytes_.data(), bytes_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  std::copy(frame.begin(), frame.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(end_));
  end_ += frame.size();
  return true;
}

Io Outbox::flush(int fd) noexcept {
  while (begin_ < end_) {
    const ssize_t sent =
        ::send(fd, bytes_.data() + begin_, end_ - begin_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      begin_ += static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Io::kBlocked;
    } else if (errno != EINTR) {
      return Io::kError;
    }
  }
  begin_ = end_ = 0;
  return Io::kDone;
}

Io Inbox::fill(int fd) noexcept {
  if (begin_ > 0) {
    std::memmove(bytes_.data(), bytes_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (true) {
    const ssize_t got = ::recv(fd, bytes_.data() + end_, bytes_.size() - end_, MSG_DONTWAIT);
    if (got > 0) {
      end_ += static_cast<std::size_t>(got);
      return Io::kDone;
    }
    // A full inbox cannot be: every frame that fits is taken out before the next fill.
    if (got == 0) return Io::kEof;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Io::kBlocked;
    if (errno != EINTR) return Io::kError;
  }
}

Inbox::Next Inbox::peek(Frame& out) const noexcept {
  const Bytes waiting(bytes_.data() + begin_, end_ - begin_);
  if (waiting.size() < kHeaderBytes) return Next::kNeedMore;
  const auto header = decode_header(waiting);
  if (!header || header->body_bytes > bytes_.size() - kHeaderBytes) return Next::kNonsense;
  const std::size_t whole = kHeaderBytes + header->body_bytes;
  if (waiting.size() < whole) return Next::kNeedMore;
  out = {*header, waiting.subspan(kHeaderBytes, header->body_bytes)};
  return Next::kFrame;
}

Inbox::Next Inbox::next(Frame& out) noexcept {
  const Next found = peek(out);
  if (found == Next::kFrame) begin_ += kHeaderBytes + out.body.size();
  return found;
}

bool Inbox::has_frame() const noexcept {
  Frame frame{};
  return peek(frame) != Next::kNeedMore;
}

}  // namespace rdma_kv::transport::stream
