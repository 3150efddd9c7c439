// One stream of a link at the receiver: puts payload straight into the blocks.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kv/plan.h"
#include "transport/stream/frames.h"
#include "transport/tcp/limits.h"

namespace rdma_kv::transport::tcp {

// Reads frames and applies DATA by itself; hands everything else to its owner as events. Each run
// is checked before a byte of the part is accepted.
class PartReceiver {
 public:
  enum class Event {
    kBlocked,  // the socket has no more now
    kTurn,     // the turn's bytes are used up; more is waiting in the socket
    kBegun,    // a WRITE: transfer(), head()
    kApplied,  // and its last byte is in its block
    kAbort,    // transfer()
    kNotice,   // transfer(), tag()
    kEnd,
    kEof,
    kError,     // errno says why
    kNonsense,  // complaint()
  };

  // The mapping must outlive it.
  explicit PartReceiver(const kv::Mapping& mapping) noexcept : mapping_(mapping) {}

  // Call it again until it is blocked or the turn is over.
  [[nodiscard]] Event advance(int fd, std::size_t& turn_bytes);
  // Drops the part under way, after ABORT.
  void drop_part() noexcept;

  bool is_in_part() const noexcept { return is_in_part_; }
  bool is_at_boundary() const noexcept { return !is_in_part_ && begin_ == end_; }
  std::uint64_t transfer() const noexcept { return header_.transfer; }
  const stream::WriteHead& head() const noexcept { return head_; }
  std::uint32_t tag() const noexcept { return tag_; }
  const char* complaint() const noexcept { return complaint_; }

 private:
  enum class State { kHeader, kWriteHead, kRuns, kStart, kPayload };
  enum class Step { kGoOn, kNeedMore, kReport };

  Step read_header();
  Step read_small();
  Step read_write_head();
  Step read_runs();
  Step start_part();
  Step end_frame();
  Step report(Event event) noexcept;
  Step complain(const char* what) noexcept;

  // Receives into the buffer, or into the blocks and then the buffer.
  Event fill(int fd, std::size_t most, std::size_t& turn_bytes) noexcept;
  Event receive_payload(int fd, std::size_t& turn_bytes) noexcept;
  Event failed() const noexcept;
  std::size_t wanted() const noexcept;
  void take_buffered_payload() noexcept;
  void gather() noexcept;
  void advance_payload(std::size_t bytes) noexcept;

  std::size_t buffered() const noexcept { return end_ - begin_; }
  stream::Bytes peek(std::size_t bytes) const noexcept { return {buffer_.data() + begin_, bytes}; }

  const kv::Mapping& mapping_;
  State state_ = State::kHeader;
  Event event_ = Event::kBlocked;
  const char* complaint_ = "";
  stream::FrameHeader header_{};
  std::uint32_t tag_ = 0;

  // The part.
  bool is_in_part_ = false;
  std::uint64_t part_transfer_ = 0;
  stream::WriteHead head_;
  std::vector<kv::Run> runs_;
  kv::Plan plan_;
  kv::Cursor cursor_;
  std::uint64_t left_ = 0;        // payload of the part
  std::uint64_t frame_left_ = 0;  // payload of the DATA frame
  std::array<kv::Extent, 64> extents_;
  std::array<iovec, kIovecs> iov_;  // [first_, count_): where payload goes next
  std::size_t first_ = 0;
  std::size_t count_ = 0;

  // Bytes received ahead: headers, runs, and the little payload that came with them.
  std::array<std::uint8_t, 16384> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace rdma_kv::transport::tcp
