#include "base/reactor.h"

#include <pthread.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace rdma_kv {
namespace {

constexpr std::uint64_t kWakeKey = 0;
constexpr int kEventsPerTurn = 64;

int timeout_ms(Nanos due, Nanos at) noexcept {
  if (due == kNever) return -1;
  if (due <= at) return 0;
  // Rounded up: waking a little late is fine, waking early would spin.
  return static_cast<int>(std::min<Nanos>((due - at + kMillisecond - 1) / kMillisecond, 60'000));
}

}  // namespace

Reactor::Reactor(const std::string& thread_name) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) throw Error(Errc::kTransfer, join("epoll_create1: ", reason(errno)));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeKey;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    throw Error(Errc::kTransfer, join("epoll_ctl: ", reason(errno)));
  }
  thread_ = std::thread([this] { loop(); });
  // The kernel keeps 15 characters of a thread's name.
  ::pthread_setname_np(thread_.native_handle(), thread_name.substr(0, 15).c_str());
}

Reactor::~Reactor() {
  stop();
  posted_.clear();  // a task may own what calls remove() when it dies
  sources_.clear();
}

void Reactor::stop() noexcept {
  is_stopping_.store(true, std::memory_order_release);
  wake_.signal();
  if (thread_.joinable() && !is_on_thread()) thread_.join();
}

bool Reactor::is_on_thread() const noexcept {
  return thread_id_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

void Reactor::add(int fd, std::uint32_t events, Handler handler) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t key = next_key_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  sources_.emplace(key, std::make_shared<Source>(Source{fd, std::move(handler)}));
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    const int err = errno;
    sources_.erase(key);
    throw Error(Errc::kTransfer, join("epoll_ctl ADD of descriptor ", fd, ": ", reason(err)));
  }
  keys_[fd] = key;
}

void Reactor::modify(int fd, std::uint32_t events) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = keys_.find(fd);
  if (found == keys_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = found->second;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Reactor::remove(int fd) noexcept {
  {
    const std::lock_guard lock(mutex_);
    const auto found = keys_.find(fd);
    if (found == keys_.end()) return;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    sources_.erase(found->second);
    keys_.erase(found);
  }
  if (!is_on_thread()) const std::lock_guard wait_for_handler(running_);
}

void Reactor::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  wake_.signal();
}

void Reactor::run(const Task& task) {
  if (is_on_thread()) {
    task();
    return;
  }
  struct Call {
    std::mutex mutex;
    std::condition_variable ended;
    bool is_done = false;
    std::exception_ptr error;
  };
  const auto call = std::make_shared<Call>();
  const auto make_call = [call, &task] {
    std::exception_ptr error;
    try {
      task();
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(call->mutex);
    call->error = std::move(error);
    call->is_done = true;
    call->ended.notify_all();
  };
  bool is_posted = false;
  {
    const std::lock_guard lock(mutex_);
    if (!has_ended_) {
      posted_.push_back(make_call);
      is_posted = true;
    }
  }
  if (!is_posted) {  // nobody is left to run it, and nobody to run beside it
    const std::lock_guard alone(after_);
    task();
    return;
  }
  wake_.signal();
  std::unique_lock lock(call->mutex);
  call->ended.wait(lock, [&] { return call->is_done; });
  // Taken along: the thread, which may let go of the call last, must not end what is thrown here.
  if (const auto error = std::move(call->error)) std::rethrow_exception(error);
}

void Reactor::every(Nanos period, Task task) {
  {
    const std::lock_guard lock(mutex_);
    periodic_.push_back({period, now() + period, std::move(task)});
  }
  wake_.signal();
}

void Reactor::wake_at(Nanos moment) noexcept {
  Nanos current = wake_at_.load(std::memory_order_relaxed);
  while (moment < current && !wake_at_.compare_exchange_weak(current, moment)) {
  }
  if (moment < current && !is_on_thread()) wake_.signal();
}

void Reactor::run_posted() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (const Task& task : tasks) task();
}

Nanos Reactor::run_periodic() {
  const Nanos at = now();
  const bool is_asked = wake_at_.load(std::memory_order_relaxed) <= at;
  if (is_asked) wake_at_.store(kNever, std::memory_order_relaxed);
  std::vector<Task> due;
  Nanos next = kNever;
  {
    const std::lock_guard lock(mutex_);
    for (Periodic& periodic : periodic_) {
      if (is_asked || periodic.due <= at) {
        periodic.due = at + periodic.period;
        due.push_back(periodic.task);
      }
      next = std::min(next, periodic.due);
    }
  }
  for (const Task& task : due) task();
  return std::min(next, wake_at_.load(std::memory_order_relaxed));
}

void Reactor::dispatch(std::uint64_t key, std::uint32_t events) {
  std::shared_ptr<Source> source;
  const std::lock_guard running(running_);
  {
    const std::lock_guard lock(mutex_);
    const auto found = sources_.find(key);
    if (found == sources_.end()) return;  // removed since the kernel reported it
    source = found->second;
  }
  source->handler(events);
}

void Reactor::loop() {
  thread_id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  std::array<epoll_event, kEventsPerTurn> events;
  Nanos next = kNever;
  while (!is_stopping_.load(std::memory_order_acquire)) {
    const int got = ::epoll_wait(epoll_.get(), events.data(), kEventsPerTurn,
                                 timeout_ms(next, next == kNever ? 0 : now()));
    try {
      for (int i = 0; i < got; ++i) {
        const auto& event = events[static_cast<std::size_t>(i)];
        if (event.data.u64 == kWakeKey) {
          wake_.drain();
        } else {
          dispatch(event.data.u64, event.events);
        }
      }
      run_posted();
      next = run_periodic();
    } catch (const std::exception& error) {
      // A handler's bug or exhausted memory must not take the other peers' thread down.
      log(LogLevel::kError, join("an event handler failed: ", error.what()));
    }
  }
  // Whoever waits in run() must not wait for ever, so the thread ends only with an empty queue.
  while (true) {
    run_posted();
    const std::lock_guard lock(mutex_);
    has_ended_ = posted_.empty();
    if (!has_ended_) continue;
    thread_id_.store({}, std::memory_order_relaxed);  // it may become another thread's
    return;
  }
}

}  // namespace rdma_kv
