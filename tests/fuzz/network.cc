#include "network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace fuzz::network {
namespace {

// Above what the process could ever open.
constexpr int kFirst = 1 << 24;

struct Epoll {
  std::map<int, epoll_event> watched;
  bool is_closed = false;
};

struct State {
  std::map<int, std::unique_ptr<Socket>> sockets;
  std::map<int, Epoll> epolls;
  std::vector<int> waiting;  // to be accepted
  int next = kFirst;
  int listener = -1;
  std::function<void(int)> answer;
  std::size_t most_bytes = 0;
  unsigned interrupt_every = 0;
  unsigned calls = 0;
  std::int64_t now = 1'000'000'000;
  std::uint64_t progress = 0;
  std::uint64_t random = 0;
};
State state;

bool is_ours(int fd) { return fd >= kFirst; }

int fail(int err) {
  errno = err;
  return -1;
}

bool is_interrupted() {
  return state.interrupt_every != 0 && ++state.calls % state.interrupt_every == 0;
}

std::size_t paced(std::size_t bytes) {
  return state.most_bytes == 0 ? bytes : std::min(bytes, state.most_bytes);
}

// The core closed it, and must not use it any more.
Socket& used(int fd) {
  Socket& socket = at(fd);
  if (socket.is_closed) abort();
  return socket;
}

ssize_t receive(int fd, const iovec* iov, std::size_t count) {
  Socket& socket = used(fd);
  if (is_interrupted()) return fail(EINTR);
  std::size_t room = 0;
  for (std::size_t i = 0; i < count; ++i) room += iov[i].iov_len;
  if (room == 0) abort();  // would read as an end of the stream
  const std::size_t waiting = socket.arriving.size() - socket.read;
  if (waiting == 0) {
    if (socket.broken == 0 && !socket.has_ended) return fail(EAGAIN);
    ++state.progress;
    if (socket.broken == 0 || std::exchange(socket.has_told, true)) return 0;
    return fail(socket.broken);
  }
  std::size_t left = paced(std::min(waiting, room));
  const auto total = static_cast<ssize_t>(left);
  for (std::size_t i = 0; i < count && left > 0; ++i) {
    const std::size_t take = std::min(left, iov[i].iov_len);
    std::memcpy(iov[i].iov_base, socket.arriving.data() + socket.read, take);
    socket.read += take;
    left -= take;
  }
  ++state.progress;
  return total;
}

ssize_t transmit(int fd, const iovec* iov, std::size_t count) {
  Socket& socket = used(fd);
  if (is_interrupted()) return fail(EINTR);
  if (socket.broken != 0) {
    ++state.progress;
    return fail(std::exchange(socket.has_told, true) ? EPIPE : socket.broken);
  }
  if (socket.is_shut_for_writing) return fail(EPIPE);
  if (socket.room == 0) {
    socket.was_blocked = true;
    return fail(EAGAIN);
  }
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) bytes += iov[i].iov_len;
  std::size_t left = paced(std::min(bytes, socket.room));
  const auto total = static_cast<ssize_t>(left);
  if (socket.room != SIZE_MAX) socket.room -= left;
  for (std::size_t i = 0; i < count && left > 0; ++i) {
    const std::size_t take = std::min(left, iov[i].iov_len);
    const auto* from = static_cast<const std::uint8_t*>(iov[i].iov_base);
    socket.sent.insert(socket.sent.end(), from, from + take);
    left -= take;
  }
  ++state.progress;
  return total;
}

short ready_for(const Socket& socket, short events) {
  short ready = 0;
  if (socket.is_readable()) ready = static_cast<short>(ready | (events & POLLIN));
  if (socket.is_writable()) ready = static_cast<short>(ready | (events & POLLOUT));
  return ready;
}

}  // namespace

void reset() { state = State{}; }

int make_socket() {
  const int fd = state.next++;
  state.sockets[fd] = std::make_unique<Socket>();
  return fd;
}

Socket& at(int fd) {
  const auto found = state.sockets.find(fd);
  if (found == state.sockets.end()) abort();
  return *found->second;
}

std::vector<int> sockets() {
  std::vector<int> found;
  for (const auto& [fd, socket] : state.sockets) found.push_back(fd);
  return found;
}

int listener() { return state.listener; }

int connect_to_listener() {
  const int fd = make_socket();
  state.waiting.push_back(fd);
  at(state.listener).arriving.push_back(1);
  return fd;
}

void answer_connections(std::function<void(int fd)> answer) { state.answer = std::move(answer); }

void arrive(int fd, std::span<const std::uint8_t> bytes) {
  Socket& socket = at(fd);
  socket.arriving.insert(socket.arriving.end(), bytes.begin(), bytes.end());
}

void set_pace(std::size_t most_bytes, unsigned interrupt_every) {
  state.most_bytes = most_bytes;
  // Every call interrupted would be a call that never ends.
  state.interrupt_every = interrupt_every == 1 ? 2 : interrupt_every;
}

void pass(std::int64_t nanoseconds) { state.now += nanoseconds; }

std::uint64_t progress() { return state.progress; }

}  // namespace fuzz::network

// ---- the system calls, under the names that `-Wl,--wrap` gives them

using namespace fuzz::network;

extern "C" {

int __real_close(int fd);

ssize_t __wrap_recv(int fd, void* out, std::size_t bytes, int) {
  const iovec one{out, bytes};
  return receive(fd, &one, 1);
}

ssize_t __wrap_recvmsg(int fd, msghdr* message, int) {
  if (message->msg_iovlen > 1024) return fail(EMSGSIZE);
  return receive(fd, message->msg_iov, message->msg_iovlen);
}

ssize_t __wrap_send(int fd, const void* from, std::size_t bytes, int) {
  const iovec one{const_cast<void*>(from), bytes};
  return transmit(fd, &one, 1);
}

ssize_t __wrap_sendmsg(int fd, const msghdr* message, int) {
  if (message->msg_iovlen > 1024) return fail(EMSGSIZE);
  return transmit(fd, message->msg_iov, message->msg_iovlen);
}

int __wrap_shutdown(int fd, int how) {
  if (how != SHUT_RD) used(fd).is_shut_for_writing = true;
  ++state.progress;
  return 0;
}

int __wrap_close(int fd) {
  if (!is_ours(fd)) return __real_close(fd);
  ++state.progress;
  if (const auto found = state.epolls.find(fd); found != state.epolls.end()) {
    if (std::exchange(found->second.is_closed, true)) abort();
    return 0;
  }
  used(fd).is_closed = true;
  for (auto& [number, epoll] : state.epolls) epoll.watched.erase(fd);
  return 0;
}

int __wrap_socket(int, int, int) { return make_socket(); }
int __wrap_bind(int, const sockaddr*, socklen_t) { return 0; }

int __wrap_connect(int fd, const sockaddr*, socklen_t) {
  if (state.answer) state.answer(fd);
  return 0;
}

int __wrap_listen(int fd, int) {
  at(fd).is_listening = true;
  state.listener = fd;
  return 0;
}

// Every other stranger comes from another host.
int __wrap_accept4(int fd, sockaddr* from, socklen_t* length, int) {
  if (is_interrupted()) return fail(EINTR);
  if (state.waiting.empty()) return fail(EAGAIN);
  const int accepted = state.waiting.front();
  state.waiting.erase(state.waiting.begin());
  at(fd).arriving.pop_back();
  ++state.progress;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0x0a000001u + static_cast<unsigned>(accepted % 2));
  if (*length < sizeof address) abort();
  std::memcpy(from, &address, sizeof address);
  *length = sizeof address;
  return accepted;
}

int __wrap_getsockname(int, sockaddr*, socklen_t*) { return fail(ENOTSOCK); }
int __wrap_getpeername(int, sockaddr*, socklen_t*) { return fail(ENOTSOCK); }
int __wrap_setsockopt(int, int, int, const void*, socklen_t) { return 0; }
int __wrap_getsockopt(int, int, int, void* value, socklen_t* length) {
  std::memset(value, 0, *length);
  return 0;
}

int __wrap_poll(pollfd* sources, nfds_t count, int timeout_ms) {
  int ready = 0;
  for (nfds_t i = 0; i < count; ++i) {
    sources[i].revents = ready_for(used(sources[i].fd), sources[i].events);
    ready += sources[i].revents != 0 ? 1 : 0;
  }
  if (ready == 0) {
    if (timeout_ms < 0) abort();  // would wait for ever
    state.now += std::int64_t{timeout_ms} * 1'000'000;
  }
  return ready;
}

int __wrap_epoll_create1(int) {
  const int fd = state.next++;
  state.epolls[fd];
  return fd;
}

int __wrap_epoll_ctl(int epoll, int what, int fd, epoll_event* event) {
  auto& watched = state.epolls.at(epoll).watched;
  ++state.progress;
  if (what == EPOLL_CTL_DEL) return watched.erase(fd) == 1 ? 0 : fail(ENOENT);
  if ((what == EPOLL_CTL_ADD) == watched.contains(fd)) return fail(EEXIST);
  watched[fd] = *event;
  return 0;
}

int __wrap_epoll_wait(int epoll, epoll_event* out, int most, int) {
  int count = 0;
  for (const auto& [fd, event] : state.epolls.at(epoll).watched) {
    const Socket& socket = used(fd);
    std::uint32_t ready = 0;
    if (socket.is_readable()) ready |= event.events & EPOLLIN;
    if (socket.is_writable()) ready |= event.events & EPOLLOUT;
    if (socket.broken != 0) ready |= EPOLLERR;
    if (ready == 0 || count == most) continue;
    out[count] = event;
    out[count++].events = ready;
  }
  return count;
}

int __wrap_nanosleep(const timespec* time, timespec*) {
  state.now += std::int64_t{time->tv_sec} * 1'000'000'000 + time->tv_nsec;
  return 0;
}

// Not random, so that an input does the same each time; but no two answers are equal.
ssize_t __wrap_getrandom(void* out, std::size_t bytes, unsigned) {
  auto* const to = static_cast<std::uint8_t*>(out);
  const std::uint64_t drawn = ++state.random;
  for (std::size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::uint8_t>(drawn >> (8 * (i % 8)));
  return static_cast<ssize_t>(bytes);
}

}  // extern "C"

// std::chrono::steady_clock::now(); what it returns travels as its one number does.
extern "C" std::int64_t __wrap__ZNSt6chrono3_V212steady_clock3nowEv() { return state.now; }
