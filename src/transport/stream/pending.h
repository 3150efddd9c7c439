// Connections that have not shown their token yet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/stream/frames.h"

namespace rdma_kv::transport::stream {

// A HELLO must be complete this long after the connection was accepted.
inline constexpr Nanos kHelloWithin = 5 * kSecond;
// More strangers than this at once: of the address that has most of them, the one who has been
// silent longest makes room. So a flood from one address crowds out nobody else.
inline constexpr std::size_t kMostPending = 64;

// One of them. Reads no byte beyond its HELLO: what follows belongs to the link.
class Pending {
 public:
  enum class Read { kHello, kNeedMore, kGarbage, kGone };

  Pending(UniqueFd stream, std::string host) noexcept
      : stream_(std::move(stream)), host_(std::move(host)), expires_(now() + kHelloWithin) {}

  [[nodiscard]] Read read(Hello& out) noexcept;
  Nanos expires() const noexcept { return expires_; }
  const std::string& host() const noexcept { return host_; }
  int fd() const noexcept { return stream_.get(); }
  UniqueFd release() noexcept { return std::move(stream_); }

 private:
  UniqueFd stream_;
  std::string host_;
  Nanos expires_;
  std::array<std::uint8_t, kHeaderBytes + kHelloBytes> bytes_;
  std::size_t have_ = 0;
};

}  // namespace rdma_kv::transport::stream
