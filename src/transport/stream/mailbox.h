// Small frames in and out of a non-blocking socket.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "transport/stream/frames.h"

namespace rdma_kv::transport::stream {

enum class Io {
  kDone,     // everything was sent; something was received
  kBlocked,  // the socket takes or has no more now
  kEof,
  kError,  // errno says why
};

// Frames that wait to be sent. Bounded: a peer that asks and never reads fills it, and is then no
// longer listened to (or lost), but cannot make this side's memory grow.
class Outbox {
 public:
  [[nodiscard]] bool push(Bytes frame) noexcept;  // false when it would not fit
  bool push(const SmallFrame& frame) noexcept { return push(frame.bytes()); }
  [[nodiscard]] Io flush(int fd) noexcept;
  bool empty() const noexcept { return begin_ == end_; }
  std::size_t room() const noexcept { return bytes_.size() - (end_ - begin_); }

 private:
  std::array<std::uint8_t, 16384> bytes_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

struct Frame {
  FrameHeader header;
  Bytes body;  // valid until the next call
};

// Takes received bytes apart. For streams that carry no payload in this direction: a frame that
// does not fit is nonsense.
class Inbox {
 public:
  enum class Next { kFrame, kNeedMore, kNonsense };

  // One read. A socket that has more is still readable.
  [[nodiscard]] Io fill(int fd) noexcept;
  [[nodiscard]] Next next(Frame& out) noexcept;
  bool has_frame() const noexcept;  // or nonsense: next() has something to say without a fill()

 private:
  Next peek(Frame& out) const noexcept;

  std::array<std::uint8_t, 4096> bytes_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace rdma_kv::transport::stream
