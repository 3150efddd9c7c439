#include "engine/transfer.h"

#include <chrono>
#include <utility>

#include "engine/peer.h"

namespace rdma_kv::engine {

Transfer::Transfer(std::shared_ptr<Peer> peer, std::unique_ptr<kv::Plan> plan, Label label,
                   Nanos deadline)
    : peer_(std::move(peer)), plan_(std::move(plan)), tag_(label.tag), deadline_(deadline) {
  write_.tag = label.notify ? label.tag : 0;
  write_.plan = plan_.get();
  write_.owner = this;
  stats_.blocks = plan_->blocks();
  stats_.bytes = plan_->bytes();
  stats_.runs = plan_->runs().size();
  stats_.submitted = now();
}

bool Transfer::wait(Nanos deadline) noexcept {
  if (is_done() || peer_->drive(*this, deadline)) return true;
  std::unique_lock lock(outcome_mutex_);
  const auto ended = [this] { return is_done(); };
  if (deadline == kNever) {
    ended_.wait(lock, ended);
    return true;
  }
  const auto until = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(deadline));
  return ended_.wait_until(lock, until, ended);
}

std::optional<Error> Transfer::error() const {
  const std::lock_guard lock(outcome_mutex_);
  return error_;
}

void Transfer::rethrow() const {
  if (auto failed = error()) throw *std::move(failed);
}

void Transfer::cancel() noexcept { peer_->cancel(*this); }

int Transfer::done_fd() {
  const std::lock_guard lock(outcome_mutex_);
  if (!done_fd_) {
    done_fd_.emplace();
    if (is_done()) done_fd_->signal();
  }
  return done_fd_->get();
}

TransferStats Transfer::stats() const noexcept {
  if (is_done()) {
    const std::lock_guard lock(outcome_mutex_);
    return stats_;
  }
  return peer_->stats_of(*this);
}

std::unique_ptr<kv::Plan> Transfer::finish(std::optional<Error> error) noexcept {
  const std::lock_guard lock(outcome_mutex_);
  stats_.finished = now();
  error_ = std::move(error);
  write_.plan = nullptr;
  is_finished_.store(true, std::memory_order_release);
  ended_.notify_all();
  if (done_fd_) done_fd_->signal();
  return std::move(plan_);
}

}  // namespace rdma_kv::engine
