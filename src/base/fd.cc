#include "base/fd.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>

#include "base/error.h"

namespace rdma_kv {

EventFd::EventFd() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_) return;
  const int err = errno;
  throw Error(Errc::kTransfer,
              join("eventfd: ", reason(err), "; is `ulimit -n` large enough for this process?"));
}

void EventFd::signal() const noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is at its limit, and then it is signalled already.
  [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof one);
}

void EventFd::drain() const noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(fd_.get(), &count, sizeof count);
}

}  // namespace rdma_kv
