#include "reactor.h"

#include <sys/epoll.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "network.h"

namespace {

struct Watched {
  std::uint32_t events;
  std::shared_ptr<rdma_kv::Reactor::Handler> handler;
  bool is_disarmed = false;  // EPOLLONESHOT, and it was called
};

std::map<int, Watched> watched;
std::vector<rdma_kv::Reactor::Task> periodic;
std::vector<rdma_kv::Reactor::Task> posted;

std::uint32_t events_of(int fd, std::uint32_t wanted) {
  const auto& socket = fuzz::network::at(fd);
  if (socket.is_closed) abort();  // to be removed before it is closed
  std::uint32_t events = 0;
  if (socket.is_readable()) events |= wanted & EPOLLIN;
  if (socket.is_writable()) events |= wanted & EPOLLOUT;
  if (socket.broken != 0) events |= EPOLLERR;
  return events;
}

void run_posted() {
  for (const auto& task : std::exchange(posted, {})) task();
}

// How often a handler may run in a row and move nothing: a cut turn is called once more.
constexpr int kMostIdleCalls = 8;

}  // namespace

namespace fuzz {

void run_handlers(const std::function<void(int fd)>& after) {
  int idle = 0;
  run_posted();
  for (bool is_busy = true; is_busy;) {
    is_busy = false;
    std::vector<int> descriptors;
    for (const auto& [fd, watch] : watched) descriptors.push_back(fd);
    for (const int fd : descriptors) {
      const auto found = watched.find(fd);
      if (found == watched.end()) continue;
      const std::uint32_t events = events_of(fd, found->second.events);
      if (events == 0 || found->second.is_disarmed) continue;
      found->second.is_disarmed = (found->second.events & EPOLLONESHOT) != 0;
      is_busy = true;
      const std::uint64_t before = network::progress();
      const auto handler = found->second.handler;
      (*handler)(events);
      run_posted();
      if (after) after(fd);
      idle = network::progress() == before ? idle + 1 : 0;
      if (idle > kMostIdleCalls) abort();  // it spins
    }
  }
}

void run_periodic_tasks() {
  for (const auto& task : periodic) task();
}

void reset_reactor() {
  posted.clear();  // a task may own what calls remove() when it dies
  watched.clear();
  periodic.clear();
}

}  // namespace fuzz

namespace rdma_kv {

Reactor::Reactor(const std::string&) {}
Reactor::~Reactor() { fuzz::reset_reactor(); }

void Reactor::add(int fd, std::uint32_t events, Handler handler) {
  watched[fd] = {events, std::make_shared<Handler>(std::move(handler)), false};
}

void Reactor::modify(int fd, std::uint32_t events) noexcept {
  const auto found = watched.find(fd);
  if (found == watched.end()) return;
  found->second.events = events;
  found->second.is_disarmed = false;
}

void Reactor::remove(int fd) noexcept { watched.erase(fd); }
void Reactor::post(Task task) { posted.push_back(std::move(task)); }
void Reactor::run(const Task& task) { task(); }
void Reactor::every(Nanos, Task task) { periodic.push_back(std::move(task)); }
void Reactor::wake_at(Nanos) noexcept {}
void Reactor::stop() noexcept {}
bool Reactor::is_on_thread() const noexcept { return true; }

}  // namespace rdma_kv
