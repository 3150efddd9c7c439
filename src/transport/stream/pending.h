// Connections that have not shown their token yet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/stream/frames.h"

namespace rdma_kv::transport::stream {

// A HELLO must be complete this long after the connection was accepted.
inline constexpr Nanos kHelloWithin = 5 * kSecond;
// More strangers than this at once: the one who has been silent longest makes room.
inline constexpr std::size_t kMostPending = 64;

// One of them. Reads no byte beyond its HELLO: what follows belongs to the link.
class Pending {
 public:
  enum class Read { kHello, kNeedMore, kGarbage, kGone };

  explicit Pending(UniqueFd stream) noexcept
      : stream_(std::move(stream)), expires_(now() + kHelloWithin) {}

  [[nodiscard]] Read read(Hello& out) noexcept;
  Nanos expires() const noexcept { return expires_; }
  int fd() const noexcept { return stream_.get(); }
  UniqueFd release() noexcept { return std::move(stream_); }

 private:
  UniqueFd stream_;
  Nanos expires_;
  std::array<std::uint8_t, kHeaderBytes + kHelloBytes> bytes_;
  std::size_t have_ = 0;
};

}  // namespace rdma_kv::transport::stream
