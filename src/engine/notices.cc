#include "engine/notices.h"

#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "engine/limits.h"

namespace rdma_kv::engine {
namespace {

std::string_view host_of(const transport::Origin& origin) noexcept {
  return std::string_view(origin.name).substr(0, origin.name.find(' '));
}

}  // namespace

bool Notices::deliver(const transport::Origin& origin, std::uint32_t tag) noexcept {
  const std::lock_guard lock(mutex_);
  if (revoked_.contains(tag)) return true;
  waiting_.push_back({tag, known(origin)});
  ++counts_[tag];
  ready_.signal();
  arrived_.notify_all();
  const std::string_view host = host_of(origin);
  auto share = shares_.find(host);
  if (share == shares_.end()) share = shares_.try_emplace(std::string(host)).first;
  if (++share->second.waiting == kMostWaitingNotices) {
    log(LogLevel::kWarning,
        join(kMostWaitingNotices, " notices of ", host,
             " wait and nobody takes them (received(), poll_received()): its writes are held up "
             "until somebody does"));
  }
  return share->second.waiting < kMostWaitingNotices;
}

bool Notices::wait_for_room(const transport::Origin& origin,
                            const std::function<void()>& go_on) noexcept {
  const std::lock_guard lock(mutex_);
  const auto share = shares_.find(host_of(origin));
  if (share == shares_.end() || share->second.waiting < kMostWaitingNotices) return false;
  share->second.held_up.push_back(go_on);
  return true;
}

std::shared_ptr<const transport::Origin> Notices::known(const transport::Origin& origin) {
  auto& found = origins_[origin.epoch];
  if (found && found->name == origin.name) return found;
  auto made = found = std::make_shared<const transport::Origin>(origin);
  if (origins_.size() > kMostSpareOrigins) {
    std::erase_if(origins_, [](const auto& entry) { return entry.second.use_count() == 1; });
  }
  return made;
}

// Not before half of them are taken, so that it does not happen at every one.
void Notices::release(const Notice& notice, Calls& calls) {
  const auto share = shares_.find(host_of(*notice.origin));
  if (--share->second.waiting <= kMostWaitingNotices / 2) {
    for (auto& call : std::exchange(share->second.held_up, {})) calls.push_back(std::move(call));
  }
  if (share->second.waiting == 0) shares_.erase(share);
}

std::vector<Notice> Notices::take_all() {
  Calls calls;
  std::vector<Notice> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.assign(std::make_move_iterator(waiting_.begin()),
                 std::make_move_iterator(waiting_.end()));
    waiting_.clear();
    counts_.clear();
    ready_.drain();
    for (const Notice& notice : taken) release(notice, calls);
  }
  for (const auto& call : calls) call();
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
  Calls calls;
  for (const Notice& notice : extract(tag, count)) release(notice, calls);
  lock.unlock();
  for (const auto& call : calls) call();
  return count;
}

template <class Predicate>
void Notices::discard(Predicate is_meant) noexcept {
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(waiting_, [&](const Notice& notice) {
      if (!is_meant(notice)) return false;
      const auto count = counts_.find(notice.tag);
      if (--count->second == 0) counts_.erase(count);
      release(notice, calls);
      return true;
    });
    if (waiting_.empty() && !is_closed_) ready_.drain();
  }
  for (const auto& call : calls) call();
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
