// Decode's queue of notices.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/revoked_tags.h"
#include "engine/waiting_room.h"
#include "transport/inbound.h"

namespace rdma_kv::engine {

// A transfer of `origin` with this tag is visible here.
struct Notice {
  std::uint32_t tag;
  std::shared_ptr<const transport::Origin> origin;
};

// Safe from any thread. Keeps notices until somebody takes them, whoever that is, once. When too
// many of one process wait, or of one host, its links are held up (see NoticeSink), and no other's.
class Notices : public transport::NoticeSink {
 public:
  bool deliver(const transport::Origin& origin, std::uint32_t tag) noexcept override;
  bool wait_for_room(const transport::Origin& origin, const void* who,
                     const std::function<void()>& go_on) noexcept override;
  void stop_waiting(const transport::Origin& origin, const void* who) noexcept override;
  bool has_reserve(const transport::Origin& origin) noexcept override;

  // Everything that waits, oldest first; never blocks.
  std::vector<Notice> take_all();

  // Takes exactly `count` notices with this tag as soon as that many are there; none before. Ends
  // early when the tag is revoked or the queue closed.
  // Returns the number that were there at the deadline when it is missed (nothing taken), or
  // `count`.
  std::size_t take(std::uint32_t tag, std::size_t count, Nanos deadline);

  // Forgets what waits with this tag and what comes with it later, and wakes who waits for it;
  // until allow().
  void revoke(std::uint32_t tag);
  void allow(std::uint32_t tag);
  bool is_revoked(std::uint32_t tag) const;
  // Forgets what waits from this life of a peer.
  void discard_epoch(std::uint64_t epoch) noexcept;

  // Readable while notices wait.
  int fd() const noexcept { return ready_.get(); }
  // Makes every take() return at once, now and from now on.
  void close() noexcept;
  bool is_closed() const noexcept;

 private:
  using Rooms = std::map<std::string, WaitingRoom, std::less<>>;  // those that are not empty

  std::vector<Notice> extract(std::uint32_t tag, std::size_t count);
  template <class Predicate>
  void discard(Predicate is_meant) noexcept;
  std::shared_ptr<const transport::Origin> known(const transport::Origin& origin);
  bool has_room(const transport::Origin& origin) noexcept;
  std::array<WaitingRoom*, 2> rooms_of(const transport::Origin& origin) noexcept;
  // One notice less waits. Whom to tell, without the lock, is added to `calls`.
  void release(const Notice& notice, Calls& calls);

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Notice> waiting_;
  std::map<std::uint32_t, std::size_t> counts_;
  std::map<std::uint64_t, std::shared_ptr<const transport::Origin>> origins_;  // by epoch
  RevokedTags revoked_;
  Rooms of_process_;  // by the peer's name
  Rooms of_host_;
  EventFd ready_;
  bool is_closed_ = false;
};

}  // namespace rdma_kv::engine
