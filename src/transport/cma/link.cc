#include "transport/cma/link.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "transport/cma/batch.h"
#include "transport/cma/limits.h"
#include "transport/process/ptracer.h"
#include "transport/stream/side_stream.h"

namespace rdma_kv::transport::cma {
namespace {

class CmaLink final : public Link {
 public:
  CmaLink(const RemoteEnd& remote, const Offer& offer)
      : pid_(offer.process.pid),
        process_(check(offer)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        side_(remote) {
    epoll_event event{};
    event.events = watched_;
    if (epoll_ && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, side_.fd(), &event) == 0) return;
    const int err = errno;
    throw Error(Errc::kHandshake, join("epoll: ", reason(err), "; is `ulimit -n` large enough?"));
  }

  Post post(Write& write) noexcept override;
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override { lose(std::move(cause)); }
  bool is_broken() const noexcept override { return is_broken_; }
  Failure failure() const override { return failure_; }

  bool copies_in_post() const noexcept override { return true; }

  // A write has landed when its call returned, and no call is made after a break.
  Quiesce quiesce() noexcept override {
    if (!side_.is_broken()) (void)side_.send_end();
    return Quiesce::kQuiesced;
  }

  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  LinkCounters counters() const noexcept override { return counters_; }
  const char* transport() const noexcept override { return "cma"; }
  std::string describe() const override {
    return join("cma: process_vm_writev into process ", pid_);
  }

 private:
  bool is_peer_there() noexcept;
  void take_acks() noexcept;
  void lose(Failure cause) noexcept;

  const pid_t pid_;
  UniqueFd process_;  // a pidfd
  UniqueFd epoll_;
  stream::SideStream side_;
  std::uint32_t watched_ = EPOLLIN | EPOLLRDHUP;
  Batch batch_;                    // of current_
  Write* current_ = nullptr;       // begun, and some of it not written
  std::vector<Write*> notified_;   // written; their notices are not acknowledged
  std::vector<Write*> completed_;  // not yet handed to poll()'s caller
  LinkCounters counters_;
  Failure failure_;
  bool is_broken_ = false;
};

void CmaLink::lose(Failure cause) noexcept {
  if (!is_broken_) failure_ = std::move(cause);
  is_broken_ = true;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, side_.fd(), nullptr);
}

// The number of a dead process may be given to a new one, which must not be written to. Asked right
// before every call: between the two, the peer would have to die and all other numbers be used up.
bool CmaLink::is_peer_there() noexcept {
  std::array<pollfd, 2> ends{{{process_.get(), POLLIN, 0}, {side_.fd(), POLLRDHUP, 0}}};
  if (::poll(ends.data(), ends.size(), 0) == 0) return true;
  if (ends[1].revents != 0) take_acks();  // and learns what happened to the stream
  lose({Errc::kPeerLost,
        ends[0].revents != 0
            ? explain("process_vm_writev", ESRCH, pid_)
            : join("process_vm_writev: not called, process ", pid_,
                   " has closed its end of the link: it ended, or it ended this link: its log says "
                   "why; connect again once it is back")});
  return false;
}

Post CmaLink::post(Write& write) noexcept {
  if (is_broken_) return Post::kBroken;
  if (current_ != &write) {
    current_ = &write;
    batch_.clear();
  }
  std::size_t left = kTurnBytes;
  while (!batch_.empty() || batch_.gather(write.cursor)) {
    if (left == 0) return Post::kAgain;
    if (!is_peer_there()) return Post::kBroken;
    const ssize_t wrote = ::process_vm_writev(pid_, batch_.src().data(), batch_.src().size(),
                                              batch_.dst().data(), batch_.dst().size(), 0);
    if (wrote <= 0) {
      const int err = wrote == 0 ? EFAULT : errno;
      if (err == EINTR) continue;
      lose({err == ESRCH ? Errc::kPeerLost : Errc::kTransfer,
            explain("process_vm_writev", err, pid_)});
      return Post::kBroken;
    }
    ++counters_.posts;
    counters_.work_requests += batch_.dst().size();
    batch_.advance(static_cast<std::size_t>(wrote));
    left -= std::min(left, static_cast<std::size_t>(wrote));
  }
  current_ = nullptr;
  if (write.tag == 0) {
    completed_.push_back(&write);
    return Post::kPosted;
  }
  if (!side_.send_notice(write.id, write.tag)) {
    lose(side_.failure());
    return Post::kBroken;
  }
  notified_.push_back(&write);
  return Post::kPosted;
}

void CmaLink::take_acks() noexcept {
  std::array<std::uint64_t, 64> ids;
  std::size_t got = 0;
  do {
    got = side_.progress(ids.data(), ids.size());
    for (std::size_t i = 0; i < got; ++i) {
      const auto found = std::find_if(notified_.begin(), notified_.end(),
                                      [&](const Write* write) { return write->id == ids[i]; });
      if (found == notified_.end()) {
        return lose({Errc::kPeerLost, join("an ACK for transfer ", ids[i],
                                           ", which does not wait for it; do both sides run the "
                                           "same version?")});
      }
      ++counters_.completions;
      completed_.push_back(*found);
      notified_.erase(found);
    }
  } while (got == ids.size());
  if (side_.is_broken()) lose(side_.failure());
}

std::size_t CmaLink::poll(Completion* out, std::size_t most) noexcept {
  if (completed_.empty() && !is_broken_) take_acks();
  const std::size_t count = std::min(most, completed_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {completed_[i]};
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void CmaLink::abandon(Write& write) noexcept {
  const auto holds = [&](const std::vector<Write*>& list) {
    return std::find(list.begin(), list.end(), &write) != list.end();
  };
  // Its bytes are there and its notice is on the way: it completes as done.
  if (holds(notified_) || holds(completed_)) return;
  if (current_ == &write) current_ = nullptr;
  write.is_abandoned = true;
  completed_.push_back(&write);
}

bool CmaLink::arm(bool) noexcept {
  if (!completed_.empty() || is_broken_) return false;
  const std::uint32_t wanted = EPOLLIN | EPOLLRDHUP | (side_.has_unsent() ? EPOLLOUT : 0u);
  if (wanted == watched_) return true;
  epoll_event event{};
  event.events = wanted;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, side_.fd(), &event) == 0) watched_ = wanted;
  return true;
}

}  // namespace

std::unique_ptr<Link> open(const RemoteEnd& remote, const Offer& offer) {
  if (remote.mapping->dst_base(0) == 0) {
    throw Error(Errc::kUnavailable,
                "cma: the handshake did not tell where the peer's tensors are; do both sides run "
                "the same version?");
  }
  return std::make_unique<CmaLink>(remote, offer);
}

std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, pid_t prefill) {
  auto end_path = [grant = process::grant_ptrace(prefill)]() mutable { grant.reset(); };
  return stream::make_side_inbound(reactor, sink, std::move(origin), "cma", std::move(end_path),
                                   stream::Stops::kAtTheSender, process::open_process(prefill));
}

}  // namespace rdma_kv::transport::cma
