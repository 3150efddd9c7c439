#include "engine/notices.h"

#include <algorithm>
#include <utility>

namespace rdma_kv::engine {

void Notices::deliver(const transport::Origin& origin, std::uint32_t tag) noexcept {
  const std::lock_guard lock(mutex_);
  if (origins_.size() >= most_origins_ && !origins_.contains(origin.epoch)) forget_origins();
  auto& known = origins_[origin.epoch];
  if (!known || known->name != origin.name) {
    known = std::make_shared<const transport::Origin>(origin);
  }
  waiting_.push_back({tag, known});
  ++counts_[tag];
  ready_.signal();
  arrived_.notify_all();
}

// Twice what is in use may come before the next look, so that looking costs nothing worth counting.
void Notices::forget_origins() {
  std::erase_if(origins_, [](const auto& entry) { return entry.second.use_count() == 1; });
  most_origins_ = std::max(kOriginsKept, 2 * origins_.size());
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
  const auto enough = [&] { return is_closed_ || here() >= count; };
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
