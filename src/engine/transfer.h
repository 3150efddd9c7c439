// One write_cache call, from its submission to its end.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "kv/plan.h"
#include "transport/link.h"

namespace rdma_kv::engine {

class Peer;

enum class State : std::uint8_t { kQueued, kMoving, kStopping, kDone, kFailed };

// What a write belongs to: decode revokes writes by their tag, and is told of those that notify.
struct Label {
  std::uint32_t tag = 0;
  bool notify = true;
};

struct TransferStats {
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;
  std::uint64_t runs = 0;
  Nanos submitted = 0;
  Nanos started = 0;   // first post, 0: never
  Nanos finished = 0;  // 0: not yet
};

// Shared by the caller, who waits for it, and the peer, which moves it. The outcome is written
// once.
class Transfer {
 public:
  Transfer(std::shared_ptr<Peer> peer, std::unique_ptr<kv::Plan> plan, Label label, Nanos deadline);

  // Drives the path itself while it can, then sleeps. True when the transfer has ended, false at
  // `deadline`. Throws nothing: see rethrow().
  bool wait(Nanos deadline) noexcept;
  bool is_done() const noexcept { return is_finished_.load(std::memory_order_acquire); }
  void rethrow()
      const;  // throws the Error it failed with; nothing when it succeeded or is not done
  std::optional<Error> error() const;
  void cancel() noexcept;  // asks; the outcome says whether it came in time
  int done_fd();           // readable once it has ended; made on the first call
  TransferStats stats() const noexcept;
  std::uint32_t tag() const noexcept { return tag_; }

 private:
  friend class Peer;
  // Takes the plan back, for the next transfer.
  std::unique_ptr<kv::Plan> finish(std::optional<Error> error) noexcept;

  std::shared_ptr<Peer> peer_;
  std::unique_ptr<kv::Plan> plan_;
  const std::uint32_t tag_;
  // Under the peer's lock until finished.
  transport::Write write_;
  State state_ = State::kQueued;
  std::size_t slot_ = 0;  // in the peer's list of moving transfers
  Nanos deadline_;
  Nanos stop_deadline_ = kNever;     // when an abandoned write must have stopped
  std::optional<Error> stop_cause_;  // why it was abandoned
  TransferStats stats_;

  std::atomic<bool> is_finished_{false};
  mutable std::mutex outcome_mutex_;
  std::condition_variable ended_;
  std::optional<Error> error_;
  std::optional<EventFd> done_fd_;
};

}  // namespace rdma_kv::engine
