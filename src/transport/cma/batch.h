// The next system call's worth of a write.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kv/plan.h"
#include "transport/cma/limits.h"

namespace rdma_kv::transport::cma {

// A list of iovecs, joined where they touch, that is used up from the front.
class IovecList {
 public:
  void clear() noexcept { first_ = count_ = 0; }
  bool empty() const noexcept { return first_ == count_; }
  bool is_full() const noexcept { return count_ == iov_.size(); }
  const iovec* data() const noexcept { return iov_.data() + first_; }
  std::size_t size() const noexcept { return count_ - first_; }

  void add(std::uint64_t address, std::size_t bytes) noexcept {
    if (count_ > 0) {
      iovec& last = iov_[count_ - 1];
      if (reinterpret_cast<std::uint64_t>(last.iov_base) + last.iov_len == address) {
        last.iov_len += bytes;
        return;
      }
    }
    iov_[count_++] = {reinterpret_cast<void*>(address), bytes};
  }

  void advance(std::size_t bytes) noexcept {
    while (bytes > 0 && bytes >= iov_[first_].iov_len) bytes -= iov_[first_++].iov_len;
    if (bytes == 0) return;
    iov_[first_].iov_base = static_cast<std::uint8_t*>(iov_[first_].iov_base) + bytes;
    iov_[first_].iov_len -= bytes;
  }

 private:
  std::array<iovec, kIovecs> iov_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

// Both sides of it cover the same bytes at every moment, joined each on its own.
class Batch {
 public:
  void clear() noexcept {
    src_.clear();
    dst_.clear();
    rest_ = {};
  }
  bool empty() const noexcept { return src_.empty(); }
  const IovecList& src() const noexcept { return src_; }
  const IovecList& dst() const noexcept { return dst_; }

  // Only when empty. False at the end of the write.
  bool gather(kv::Cursor& cursor) noexcept {
    src_.clear();
    dst_.clear();
    std::size_t bytes = 0;
    while (bytes < kCallBytes && !src_.is_full() && !dst_.is_full()) {
      if (rest_.bytes == 0 && cursor.next(&rest_, 1) == 0) break;
      const std::uint64_t take = std::min<std::uint64_t>(rest_.bytes, kCallBytes - bytes);
      src_.add(rest_.src, take);
      dst_.add(rest_.dst, take);
      rest_ = {rest_.src + take, rest_.dst + take, rest_.bytes - take, rest_.region};
      bytes += take;
    }
    return !src_.empty();
  }

  void advance(std::size_t bytes) noexcept {
    src_.advance(bytes);
    dst_.advance(bytes);
  }

 private:
  IovecList src_;
  IovecList dst_;
  kv::Extent rest_{};  // of an extent that is larger than a call
};

}  // namespace rdma_kv::transport::cma
