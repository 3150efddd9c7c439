#include "transport/tcp/part_sender.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "transport/stream/socket.h"

namespace rdma_kv::transport::tcp {

PartSender::PartSender(UniqueFd fd) : fd_(std::move(fd)), path_(stream::path_of(fd_.get())) {}

void PartSender::begin(std::uint64_t transfer, const stream::WriteHead& head,
                       std::span<const kv::Run> runs, const kv::Mapping& mapping) {
  transfer_ = transfer;
  runs_.assign(runs.begin(), runs.end());
  cursor_ = kv::Cursor(runs_, head.layers, mapping);
  extent_ = extents_end_ = 0;
  std::uint64_t blocks = 0;
  for (const kv::Run& run : runs_) blocks += run.count;
  left_ = blocks * head.layers.count * mapping.bytes_per_layer();
  frame_left_ = 0;
  says_abort_ = false;
  is_untouched_ = true;
  stream::encode_write(transfer, head, runs_, control_);
}

void PartSender::say_end() {
  const auto frame = stream::encode_plain(stream::FrameType::kEnd, 0);
  control_.assign(frame.bytes().begin(), frame.bytes().end());
}

// The iovec where a DATA frame begins of which no byte was sent, or count_.
std::size_t PartSender::first_unsent_header() const noexcept {
  for (std::size_t i = 0; i < header_count_; ++i) {
    const std::size_t at = header_at_[i];
    if (at >= count_) break;
    if (at > first_ || (at == first_ && iov_[at].iov_len == stream::kHeaderBytes)) return at;
  }
  return count_;
}

bool PartSender::can_stop() const noexcept {
  return left_ > 0 || first_unsent_header() < count_ || (is_untouched_ && !is_idle());
}

bool PartSender::stop() noexcept {
  if (is_untouched_) {
    discard();
    return false;
  }
  left_ = 0;
  if (const std::size_t at = first_unsent_header(); at < count_) {
    count_ = at;
    frame_left_ = 0;  // it belonged to a frame that is left out
  }
  says_abort_ = true;
  return true;
}

void PartSender::discard() noexcept {
  first_ = count_ = header_count_ = 0;
  control_.clear();
  left_ = frame_left_ = 0;
  says_abort_ = is_untouched_ = false;
}

bool PartSender::next_extent() noexcept {
  if (extent_ < extents_end_) return true;
  extent_ = 0;
  extents_end_ = cursor_.next(extents_.data(), extents_.size());
  return extents_end_ > 0;
}

void PartSender::gather() noexcept {
  first_ = count_ = header_count_ = 0;
  if (says_abort_ && frame_left_ == 0) {
    const auto frame = stream::encode_plain(stream::FrameType::kAbort, transfer_);
    control_.assign(frame.bytes().begin(), frame.bytes().end());
    says_abort_ = false;
  }
  if (!control_.empty()) {
    control_in_batch_.swap(control_);
    control_.clear();
    iov_[count_++] = {control_in_batch_.data(), control_in_batch_.size()};
  }
  std::size_t bytes = 0;
  bool may_join = false;  // with the iovec before: not with a header
  while (count_ + 1 < iov_.size() && bytes < kBatchBytes) {
    if (frame_left_ == 0) {
      if (left_ == 0 || header_count_ == headers_.size()) return;
      frame_left_ = std::min<std::uint64_t>(left_, kFrameBytes);
      left_ -= frame_left_;
      auto& header = headers_[header_count_];
      stream::encode_data_header(transfer_, static_cast<std::uint32_t>(frame_left_), header.data());
      header_at_[header_count_++] = count_;
      iov_[count_++] = {header.data(), header.size()};
      may_join = false;
    }
    if (!next_extent()) return;
    kv::Extent& extent = extents_[extent_];
    const std::uint64_t take = std::min(extent.bytes, frame_left_);
    auto* const src = reinterpret_cast<std::uint8_t*>(extent.src);
    iovec* const last = may_join ? &iov_[count_ - 1] : nullptr;  // a batch may begin in a frame
    if (last != nullptr && static_cast<std::uint8_t*>(last->iov_base) + last->iov_len == src) {
      last->iov_len += take;
    } else {
      iov_[count_++] = {src, take};
    }
    may_join = true;
    extent.src += take;
    extent.bytes -= take;
    frame_left_ -= take;
    bytes += take;
    if (extent.bytes == 0) ++extent_;
  }
}

void PartSender::advance(std::size_t bytes) noexcept {
  while (bytes > 0 && bytes >= iov_[first_].iov_len) bytes -= iov_[first_++].iov_len;
  if (bytes == 0) return;
  iov_[first_].iov_base = static_cast<std::uint8_t*>(iov_[first_].iov_base) + bytes;
  iov_[first_].iov_len -= bytes;
}

PartSender::Sent PartSender::send(std::size_t& turn_bytes) noexcept {
  while (true) {
    if (first_ == count_) {
      if (is_idle()) return Sent::kAll;
      if (turn_bytes == 0) return Sent::kTurn;
      gather();
    }
    msghdr message{};
    message.msg_iov = iov_.data() + first_;
    message.msg_iovlen = count_ - first_;
    const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? Sent::kBlocked : Sent::kError;
    }
    ++calls_;
    iovecs_ += message.msg_iovlen;
    if (sent > 0) is_untouched_ = false;
    advance(static_cast<std::size_t>(sent));
    turn_bytes -= std::min(turn_bytes, static_cast<std::size_t>(sent));
  }
}

}  // namespace rdma_kv::transport::tcp
