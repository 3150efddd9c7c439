#include "transport/stream/pending.h"

#include <sys/socket.h>

#include <cerrno>

namespace rdma_kv::transport::stream {

Pending::Read Pending::read(Hello& out) noexcept {
  while (have_ < bytes_.size()) {
    const ssize_t got =
        ::recv(stream_.get(), bytes_.data() + have_, bytes_.size() - have_, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Read::kNeedMore;
    if (got <= 0) return Read::kGone;
    have_ += static_cast<std::size_t>(got);
    if (have_ < kHeaderBytes) continue;
    const auto header = decode_header({bytes_.data(), kHeaderBytes});
    if (!header || header->type != FrameType::kHello) return Read::kGarbage;
  }
  const auto hello = decode_hello({bytes_.data() + kHeaderBytes, kHelloBytes});
  if (!hello) return Read::kGarbage;
  out = *hello;
  return Read::kHello;
}

}  // namespace rdma_kv::transport::stream
