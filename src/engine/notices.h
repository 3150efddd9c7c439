// Decode's queue of notices.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/inbound.h"

namespace rdma_kv::engine {

// Names of writers that are kept for their next notice. Writers come and go for as long as this
// process lives, each with an epoch of its own.
inline constexpr std::size_t kOriginsKept = 256;

// A transfer of `origin` with this tag is visible here.
struct Notice {
  std::uint32_t tag;
  std::shared_ptr<const transport::Origin> origin;
};

// Safe from any thread. Keeps notices until somebody takes them, whoever that is, once.
class Notices : public transport::NoticeSink {
 public:
  void deliver(const transport::Origin& origin, std::uint32_t tag) noexcept override;

  // Everything that waits, oldest first; never blocks.
  std::vector<Notice> take_all();

  // Takes exactly `count` notices with this tag as soon as that many are there; none before.
  // Returns the number that were there at the deadline when it is missed (nothing taken), or
  // `count`. `woken` ends the wait early: see interrupt().
  std::size_t take(std::uint32_t tag, std::size_t count, Nanos deadline);

  // Readable while notices wait.
  int fd() const noexcept { return ready_.get(); }
  // Makes every take() return at once, now and from now on.
  void close() noexcept;
  bool is_closed() const noexcept;

 private:
  std::vector<Notice> extract(std::uint32_t tag, std::size_t count);
  void forget_origins();

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Notice> waiting_;
  std::map<std::uint32_t, std::size_t> counts_;
  std::map<std::uint64_t, std::shared_ptr<const transport::Origin>> origins_;  // by epoch
  std::size_t most_origins_ = kOriginsKept;  // when so many are known, the idle ones go
  EventFd ready_;
  bool is_closed_ = false;
};

}  // namespace rdma_kv::engine
