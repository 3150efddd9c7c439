// One thread that waits for descriptors and moments, and calls whoever asked.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"

namespace rdma_kv {

// Owns its thread, which sleeps in epoll_wait while nothing happens. Handlers run on that thread,
// one at a time, and must not block: everything of this engine waits behind them.
class Reactor {
 public:
  using Handler = std::function<void(std::uint32_t events)>;  // EPOLLIN, ...
  using Task = std::function<void()>;

  explicit Reactor(const std::string& thread_name);
  ~Reactor();  // stops and joins; tasks not yet run are dropped
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Watches `fd` (borrowed: remove() it before closing it). `events` as for epoll_ctl, may hold
  // EPOLLONESHOT or EPOLLET. Any thread. Throws Error when the kernel refuses.
  void add(int fd, std::uint32_t events, Handler handler);
  // Changes the events waited for; re-arms EPOLLONESHOT. Any thread.
  void modify(int fd, std::uint32_t events) noexcept;
  // After it returns the handler does not run and will not: it waits for a running one, unless
  // called from the reactor's thread itself. Any thread. Unknown descriptors are ignored.
  void remove(int fd) noexcept;

  // Runs `task` on the thread as soon as it can. Any thread.
  void post(Task task);
  // Runs `task` on the thread and waits for it; at once when already on it.
  // Throws what the task throws. Once the thread has ended the caller runs it, one at a time.
  void run(const Task& task);

  // Calls `task` about every `period`, on the thread, for as long as the reactor lives.
  void every(Nanos period, Task task);
  // Makes the thread wake no later than `moment` to run the periodic tasks.
  void wake_at(Nanos moment) noexcept;

  void stop() noexcept;                // idempotent; joins unless called on the thread
  bool is_on_thread() const noexcept;  // any thread, stop() under way or not

 private:
  struct Source {
    int fd;
    Handler handler;
  };
  struct Periodic {
    Nanos period;
    Nanos due;
    Task task;
  };

  void loop();
  void run_posted();
  Nanos run_periodic();
  void dispatch(std::uint64_t key, std::uint32_t events);

  UniqueFd epoll_;
  EventFd wake_;
  std::mutex mutex_;  // guards everything below up to running_
  std::unordered_map<std::uint64_t, std::shared_ptr<Source>> sources_;  // key: serial number
  std::unordered_map<int, std::uint64_t> keys_;                         // descriptor -> serial
  std::uint64_t next_key_ = 1;
  std::vector<Task> posted_;
  std::vector<Periodic> periodic_;
  bool has_ended_ = false;  // the thread runs nothing any more
  std::mutex running_;      // held while a handler runs, so that remove() can wait for it
  std::mutex after_;        // held while a task of run() runs after the thread's end
  std::atomic<Nanos> wake_at_{kNever};
  std::atomic<bool> is_stopping_{false};
  std::atomic<std::thread::id> thread_id_{};  // not asked of thread_, which stop() changes
  std::thread thread_;
};

}  // namespace rdma_kv
