#include "engine/notices.h"

#include <algorithm>
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

template <class Rooms>
const WaitingRoom& add(Rooms& rooms, std::string_view whose, std::size_t limit) {
  auto room = rooms.find(whose);
  if (room == rooms.end()) room = rooms.try_emplace(std::string(whose), limit).first;
  if (!room->second.add()) return room->second;
  log(LogLevel::kWarning,
      join(limit, " notices of ", whose,
           " wait and nobody takes them (received(), poll_received()): its writes are held up "
           "until somebody does"));
  return room->second;
}

template <class Rooms>
WaitingRoom* find(Rooms& rooms, std::string_view whose) noexcept {
  const auto room = rooms.find(whose);
  return room == rooms.end() ? nullptr : &room->second;
}

template <class Rooms>
void take_out(Rooms& rooms, std::string_view whose, Calls& calls) {
  const auto room = rooms.find(whose);
  room->second.release(calls);
  if (room->second.is_empty()) rooms.erase(room);
}

}  // namespace

bool Notices::deliver(const transport::Origin& origin, std::uint32_t tag) noexcept {
  const std::lock_guard lock(mutex_);
  if (revoked_.contains(tag)) return has_room(origin);
  waiting_.push_back({tag, known(origin)});
  ++counts_[tag];
  ready_.signal();
  arrived_.notify_all();
  const WaitingRoom& process = add(of_process_, origin.name, kMostWaitingOfProcess);
  const WaitingRoom& host = add(of_host_, host_of(origin), kMostWaitingOfHost);
  return !process.is_full() && !host.is_full();
}

bool Notices::has_room(const transport::Origin& origin) noexcept {
  const auto rooms = rooms_of(origin);
  return std::none_of(rooms.begin(), rooms.end(),
                      [](const WaitingRoom* room) { return room && room->is_full(); });
}

bool Notices::wait_for_room(const transport::Origin& origin, const void* who,
                            const std::function<void()>& go_on) noexcept {
  const std::lock_guard lock(mutex_);
  for (WaitingRoom* const room : rooms_of(origin)) {
    if (!room || !room->is_full()) continue;
    room->hold_up(who, go_on);
    return true;
  }
  return false;
}

void Notices::stop_waiting(const transport::Origin& origin, const void* who) noexcept {
  const std::lock_guard lock(mutex_);
  for (WaitingRoom* const room : rooms_of(origin)) {
    if (room) room->forget(who);
  }
}

bool Notices::has_reserve(const transport::Origin& origin) noexcept {
  const std::lock_guard lock(mutex_);
  const auto rooms = rooms_of(origin);
  return std::none_of(rooms.begin(), rooms.end(),
                      [](const WaitingRoom* room) { return room && room->is_overfull(); });
}

std::array<WaitingRoom*, 2> Notices::rooms_of(const transport::Origin& origin) noexcept {
  return {find(of_process_, origin.name), find(of_host_, host_of(origin))};
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

void Notices::release(const Notice& notice, Calls& calls) {
  take_out(of_process_, notice.origin->name, calls);
  take_out(of_host_, host_of(*notice.origin), calls);
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
