#include "transport/tcp/part_receiver.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rdma_kv::transport::tcp {
namespace {

using stream::FrameType;

// Read ahead when a new write may follow: its WRITE, its runs and the first DATA header come with
// one system call, at the price of copying as much payload at most.
constexpr std::size_t kReadAhead = 4096;

}  // namespace

PartReceiver::Step PartReceiver::report(Event event) noexcept {
  event_ = event;
  return Step::kReport;
}

PartReceiver::Step PartReceiver::complain(const char* what) noexcept {
  complaint_ = what;
  return report(Event::kNonsense);
}

PartReceiver::Event PartReceiver::advance(int fd, std::size_t& turn_bytes) {
  while (true) {
    Step step = Step::kNeedMore;
    switch (state_) {
      case State::kHeader:
        step = read_header();
        break;
      case State::kWriteHead:
        step = read_write_head();
        break;
      case State::kRuns:
        step = read_runs();
        break;
      case State::kStart:
        step = start_part();
        break;
      case State::kPayload:
        take_buffered_payload();
        step = frame_left_ == 0 ? end_frame() : Step::kNeedMore;
        break;
    }
    if (step == Step::kGoOn) continue;
    if (step == Step::kReport) return event_;
    // Only here is the buffer known to hold nothing to act on: a turn may end.
    if (turn_bytes == 0) return Event::kTurn;
    const Event got = state_ == State::kPayload ? receive_payload(fd, turn_bytes)
                                                : fill(fd, wanted(), turn_bytes);
    if (got != Event::kTurn) return got;  // kTurn: something came
  }
}

// What may be read without taking payload in that need not be copied.
std::size_t PartReceiver::wanted() const noexcept {
  if (state_ == State::kHeader) return is_in_part_ ? stream::kHeaderBytes : kReadAhead;
  const std::size_t runs_left = (head_.run_count - runs_.size()) * stream::kRunBytes;
  if (state_ == State::kRuns) return runs_left + stream::kHeaderBytes;
  return kReadAhead;
}

PartReceiver::Step PartReceiver::read_header() {
  if (buffered() < stream::kHeaderBytes) return Step::kNeedMore;
  const auto header = stream::decode_header(peek(stream::kHeaderBytes));
  if (!header) return complain("a frame that is not one of the protocol");
  header_ = *header;
  const bool may_come =
      !is_in_part_ || ((header_.type == FrameType::kData || header_.type == FrameType::kAbort) &&
                       header_.transfer == part_transfer_);
  if (!may_come) return complain("a frame in the middle of another write");
  switch (header_.type) {
    case FrameType::kWrite:
      begin_ += stream::kHeaderBytes;
      state_ = State::kWriteHead;
      return Step::kGoOn;
    case FrameType::kData:
      if (!is_in_part_) return complain("DATA without WRITE");
      if (header_.body_bytes > left_) return complain("more DATA than the write has");
      begin_ += stream::kHeaderBytes;
      frame_left_ = header_.body_bytes;
      state_ = State::kPayload;
      return Step::kGoOn;
    case FrameType::kNotice:
    case FrameType::kAbort:
    case FrameType::kEnd:
      return read_small();
    default:
      return complain("a frame that only the receiver sends");
  }
}

PartReceiver::Step PartReceiver::read_small() {
  if (buffered() < stream::kHeaderBytes + header_.body_bytes) return Step::kNeedMore;
  begin_ += stream::kHeaderBytes;
  const auto word = stream::decode_word(peek(header_.body_bytes));
  begin_ += header_.body_bytes;
  if (header_.type == FrameType::kAbort) return report(Event::kAbort);
  if (header_.type == FrameType::kEnd) return report(Event::kEnd);
  tag_ = word.value_or(0);
  return report(Event::kNotice);
}

PartReceiver::Step PartReceiver::read_write_head() {
  if (buffered() < stream::kWriteHeadBytes) return Step::kNeedMore;
  const auto head = stream::decode_write_head(peek(stream::kWriteHeadBytes));
  if (!head || header_.body_bytes !=
                   stream::kWriteHeadBytes + std::uint64_t{head->run_count} * stream::kRunBytes) {
    return complain("a WRITE whose numbers do not fit each other");
  }
  // Each run has a block of its own, so that the layout bounds what has to be remembered.
  if (head->run_count > mapping_.dst_blocks())
    return complain("a WRITE with more runs than blocks");
  begin_ += stream::kWriteHeadBytes;
  head_ = *head;
  runs_.clear();
  state_ = State::kRuns;
  return Step::kGoOn;
}

PartReceiver::Step PartReceiver::read_runs() {
  const std::size_t take =
      std::min<std::size_t>(buffered() / stream::kRunBytes, head_.run_count - runs_.size());
  const std::size_t had = runs_.size();
  runs_.resize(had + take);
  (void)stream::decode_runs(peek(take * stream::kRunBytes), std::span(runs_).subspan(had));
  begin_ += take * stream::kRunBytes;
  if (runs_.size() < head_.run_count) return Step::kNeedMore;
  if (!plan_.assign_received(mapping_, runs_, head_.layers)) {
    return complain("a WRITE to blocks or layers that do not exist here, or twice to one block");
  }
  part_transfer_ = header_.transfer;
  cursor_ = kv::Cursor(plan_, mapping_);
  first_ = count_ = 0;
  left_ = plan_.bytes();
  is_in_part_ = true;
  state_ = State::kStart;
  return report(Event::kBegun);
}

PartReceiver::Step PartReceiver::start_part() {
  state_ = State::kHeader;
  if (left_ > 0) return Step::kGoOn;
  is_in_part_ = false;
  return report(Event::kApplied);
}

PartReceiver::Step PartReceiver::end_frame() { return start_part(); }

void PartReceiver::drop_part() noexcept {
  is_in_part_ = false;
  left_ = frame_left_ = 0;
  first_ = count_ = 0;
  state_ = State::kHeader;
}

// Joins blocks that touch here, whatever they do at the sender. One iovec stays free for the
// buffer.
void PartReceiver::gather() noexcept {
  first_ = count_ = 0;
  while (count_ + 1 < iov_.size()) {
    const std::size_t most = std::min(extents_.size(), iov_.size() - 1 - count_);
    const std::size_t made = cursor_.next(extents_.data(), most);
    if (made == 0) return;
    for (std::size_t i = 0; i < made; ++i) {
      auto* const dst = reinterpret_cast<std::uint8_t*>(extents_[i].dst);
      if (count_ > 0) {
        iovec& last = iov_[count_ - 1];
        if (static_cast<std::uint8_t*>(last.iov_base) + last.iov_len == dst) {
          last.iov_len += extents_[i].bytes;
          continue;
        }
      }
      iov_[count_++] = {dst, extents_[i].bytes};
    }
  }
}

void PartReceiver::advance_payload(std::size_t bytes) noexcept {
  frame_left_ -= bytes;
  left_ -= bytes;
  while (bytes > 0 && bytes >= iov_[first_].iov_len) bytes -= iov_[first_++].iov_len;
  if (bytes == 0) return;
  iov_[first_].iov_base = static_cast<std::uint8_t*>(iov_[first_].iov_base) + bytes;
  iov_[first_].iov_len -= bytes;
}

void PartReceiver::take_buffered_payload() noexcept {
  while (frame_left_ > 0 && buffered() > 0) {
    if (first_ == count_) gather();
    const std::size_t take =
        std::min({buffered(), iov_[first_].iov_len, static_cast<std::size_t>(frame_left_)});
    std::memcpy(iov_[first_].iov_base, buffer_.data() + begin_, take);
    begin_ += take;
    advance_payload(take);
  }
}

PartReceiver::Event PartReceiver::failed() const noexcept {
  return errno == EAGAIN || errno == EWOULDBLOCK ? Event::kBlocked : Event::kError;
}

PartReceiver::Event PartReceiver::fill(int fd, std::size_t most, std::size_t& turn_bytes) noexcept {
  std::memmove(buffer_.data(), buffer_.data() + begin_, buffered());
  end_ -= begin_;
  begin_ = 0;
  most = std::min(most, buffer_.size() - end_);
  ssize_t got = 0;
  do {
    got = ::recv(fd, buffer_.data() + end_, most, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return failed();
  if (got == 0) return Event::kEof;
  end_ += static_cast<std::size_t>(got);
  turn_bytes -= std::min(turn_bytes, static_cast<std::size_t>(got));
  return Event::kTurn;
}

// The buffer is empty here: it takes what follows the frame.
PartReceiver::Event PartReceiver::receive_payload(int fd, std::size_t& turn_bytes) noexcept {
  if (first_ == count_) gather();
  begin_ = end_ = 0;
  std::size_t last = first_;
  std::size_t bytes = 0;
  while (last < count_ && bytes < frame_left_) bytes += iov_[last++].iov_len;
  // The last block may go on in the next frame: it is cut for this call.
  const std::size_t over = bytes > frame_left_ ? bytes - static_cast<std::size_t>(frame_left_) : 0;
  bytes -= over;
  iov_[last - 1].iov_len -= over;
  const iovec displaced = iov_[last];
  const bool ends_frame = bytes == frame_left_;
  if (ends_frame) {
    iov_[last] = {buffer_.data(), left_ > frame_left_ ? stream::kHeaderBytes : kReadAhead};
  }
  msghdr message{};
  message.msg_iov = iov_.data() + first_;
  message.msg_iovlen = last - first_ + (ends_frame ? 1 : 0);
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  const int err = errno;
  iov_[last] = displaced;
  iov_[last - 1].iov_len += over;
  errno = err;
  if (got < 0) return failed();
  if (got == 0) return Event::kEof;
  const std::size_t payload = std::min(static_cast<std::size_t>(got), bytes);
  end_ = static_cast<std::size_t>(got) - payload;
  advance_payload(payload);
  turn_bytes -= std::min(turn_bytes, static_cast<std::size_t>(got));
  return Event::kTurn;
}

}  // namespace rdma_kv::transport::tcp
