#include "engine/notices.h"

#include <utility>

namespace rdma_kv::engine {

void Notices::deliver(const transport::Origin& origin, std::uint32_t tag) noexcept {
  const std::lock_guard lock(mutex_);
  if (revoked_.contains(tag)) return;
  auto& known = origins_[origin.epoch];
  if (!known || known->name != origin.name) {
    known = std::make_shared<const transport::Origin>(origin);
  }
  waiting_.push_back({tag, known});
  ++counts_[tag];
  ready_.signal();
  arrived_.notify_all();
}

std::vector<Notice> Notices::take_all() {
  const std::lock_guard lock(mutex_);
  std::vector<Notice> taken(std::make_move_iterator(waiting_.begin()),
                            std::make_move_iterator(waiting_.end()));
  waiting_.clear();
  counts_.clear();
  ready_.drain();
  return taken;
}

std::vector<Notice> Notices::extract(std::uint32_t tag, std::size_t count) {
  std::vector<Notice> taken;
  std::deque<Notice> left;
  for (auto& notice : waiting_) {
    const bool is_wanted = notice.tag == tag && taken.size() < count;
    if (is_wanted) {
      taken.push_back(std::move(notice));
    } else {
      left.push_back(std::move(notice));
    }
  }
  waiting_.swap(left);
  if ((counts_[tag] -= taken.size()) == 0) counts_.erase(tag);
  if (waiting_.empty()) ready_.drain();
  return taken;
}

std::size_t Notices::take(std::uint32_t tag, std::size_t count, Nanos deadline) {
  std::unique_lock lock(mutex_);
  const auto here = [&]() -> std::size_t {
    const auto found = counts_.find(tag);
    return found == counts_.end() ? 0 : found->second;
  };
  const auto enough = [&] { return is_closed_ || revoked_.contains(tag) || here() >= count; };
  if (deadline == kNever) {
    arrived_.wait(lock, enough);
  } else {
    const auto until = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(deadline));
    arrived_.wait_until(lock, until, enough);
  }
  if (here() < count) return here();
  extract(tag, count);
  return count;
}

template <class Predicate>
void Notices::discard(Predicate is_meant) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&](const Notice& notice) {
    if (!is_meant(notice)) return false;
    const auto count = counts_.find(notice.tag);
    if (--count->second == 0) counts_.erase(count);
    return true;
  });
  if (waiting_.empty() && !is_closed_) ready_.drain();
}

void Notices::revoke(std::uint32_t tag) {
  {
    const std::lock_guard lock(mutex_);
    revoked_.add(tag);
  }
  discard([tag](const Notice& notice) { return notice.tag == tag; });
  arrived_.notify_all();
}

void Notices::allow(std::uint32_t tag) {
  const std::lock_guard lock(mutex_);
  revoked_.remove(tag);
}

bool Notices::is_revoked(std::uint32_t tag) const {
  const std::lock_guard lock(mutex_);
  return revoked_.contains(tag);
}

void Notices::discard_epoch(std::uint64_t epoch) noexcept {
  discard([epoch](const Notice& notice) { return notice.origin->epoch == epoch; });
}

void Notices::close() noexcept {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  arrived_.notify_all();
  ready_.signal();  // who waits for the descriptor has to hear of it too
}

bool Notices::is_closed() const noexcept {
  const std::lock_guard lock(mutex_);
  return is_closed_;
}

}  // namespace rdma_kv::engine
