#include "transport/loopback/link.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "transport/loopback/end.h"
#include "transport/loopback/faults.h"

namespace rdma_kv::transport::loopback {
namespace {

// Payload copied in one poll(), before the engine looks after anything else.
constexpr std::uint64_t kTurnBytes = std::uint64_t{4} << 20;

struct Queued {
  Write* write;
  Nanos due;  // kNever: dropped
};

class LoopbackLink final : public Link {
 public:
  explicit LoopbackLink(const RemoteEnd& remote)
      : end_(find(remote)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ && timer_ && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &event) == 0 &&
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, end_->ended.get(), &event) == 0) {
      return;
    }
    const int err = errno;
    end_->end();
    throw Error(Errc::kHandshake, join("epoll: ", reason(err), "; is `ulimit -n` large enough?"));
  }
  ~LoopbackLink() override { end_->end(); }

  Post post(Write& write) noexcept override;
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override { lose(std::move(cause)); }
  bool is_broken() const noexcept override { return is_broken_; }
  Failure failure() const override { return failure_; }

  // Copies are made by this side's calls only, and none is made after a break.
  Quiesce quiesce() noexcept override {
    if (!is_broken_) lose({Errc::kPeerLost, "the link was ended; connect again to go on"});
    end_->end();
    return Quiesce::kQuiesced;
  }

  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  LinkCounters counters() const noexcept override { return counters_; }
  const char* transport() const noexcept override { return "loopback"; }
  std::string describe() const override { return "loopback: memcpy within this process"; }

 private:
  enum class Copied { kAll, kTurn, kBroken };
  Copied copy(Write& write, std::uint64_t& left) noexcept;
  bool is_end_there() noexcept;
  void lose(Failure cause) noexcept;

  const std::shared_ptr<End> end_;
  UniqueFd epoll_;
  UniqueFd timer_;  // for delayed writes
  std::deque<Queued> queued_;
  std::vector<Write*> completed_;  // not yet handed to poll()'s caller
  LinkCounters counters_;
  Failure failure_;
  bool is_broken_ = false;
};

void LoopbackLink::lose(Failure cause) noexcept {
  if (!is_broken_) failure_ = std::move(cause);
  is_broken_ = true;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, end_->ended.get(), nullptr);
}

// Needs end_->mutex.
bool LoopbackLink::is_end_there() noexcept {
  if (!end_->is_ended) return true;
  lose({Errc::kPeerLost, "the decode engine ended the link; connect again once it is back"});
  return false;
}

Post LoopbackLink::post(Write& write) noexcept {
  if (is_broken_) return Post::kBroken;
  const Nanos delay = faults().current_delay();
  queued_.push_back({&write, faults().takes_drop() ? kNever : delay == 0 ? 0 : now() + delay});
  return Post::kPosted;
}

LoopbackLink::Copied LoopbackLink::copy(Write& write, std::uint64_t& left) noexcept {
  std::array<kv::Extent, 64> extents;
  while (left > 0) {
    const std::lock_guard lock(end_->mutex);
    if (!is_end_there()) return Copied::kBroken;
    const std::size_t count = write.cursor.next(extents.data(), extents.size());
    if (count == 0) {
      if (write.tag != 0) end_->sink.deliver(end_->origin, write.tag);
      return Copied::kAll;
    }
    ++counters_.posts;
    counters_.work_requests += count;
    for (std::size_t i = 0; i < count; ++i) {
      const kv::Extent& extent = extents[i];
      const std::uint64_t bytes = faults().allow(extent.bytes);
      std::memcpy(reinterpret_cast<void*>(extent.dst), reinterpret_cast<const void*>(extent.src),
                  bytes);
      if (bytes < extent.bytes) {
        lose({Errc::kPeerLost, "loopback: cut by LoopbackFaults"});
        return Copied::kBroken;
      }
      left -= std::min(left, bytes);
    }
  }
  return Copied::kTurn;
}

std::size_t LoopbackLink::poll(Completion* out, std::size_t most) noexcept {
  if (!is_broken_) {
    const std::lock_guard lock(end_->mutex);
    (void)is_end_there();
  }
  std::uint64_t left = kTurnBytes;
  const Nanos at = queued_.empty() ? 0 : now();
  for (std::size_t i = 0; i < queued_.size() && !is_broken_;) {
    if (queued_[i].due > at) {
      ++i;
      continue;
    }
    const Copied copied = copy(*queued_[i].write, left);
    if (copied != Copied::kAll) break;
    ++counters_.completions;
    completed_.push_back(queued_[i].write);
    queued_.erase(queued_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  const std::size_t count = std::min(most, completed_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {completed_[i]};
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void LoopbackLink::abandon(Write& write) noexcept {
  if (std::find(completed_.begin(), completed_.end(), &write) != completed_.end()) return;
  std::erase_if(queued_, [&](const Queued& queued) { return queued.write == &write; });
  write.is_abandoned = true;
  completed_.push_back(&write);
}

bool LoopbackLink::arm(bool) noexcept {
  if (!completed_.empty() || is_broken_) return false;
  Nanos due = kNever;
  for (const Queued& queued : queued_) due = std::min(due, queued.due);
  itimerspec when{};  // zero disarms
  if (due != kNever) {
    if (due <= now()) return false;
    when.it_value = {due / kSecond, due % kSecond};
  }
  (void)::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
  return true;
}

}  // namespace

std::unique_ptr<Link> open(const RemoteEnd& remote) {
  if (remote.mapping->dst_base(0) == 0) {
    throw Error(Errc::kUnavailable, "loopback: the addresses of the peer's tensors were not given");
  }
  return std::make_unique<LoopbackLink>(remote);
}

}  // namespace rdma_kv::transport::loopback
