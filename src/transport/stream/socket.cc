#include "transport/stream/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace rdma_kv::transport::stream {
namespace {

constexpr int kBacklog = 128;

constexpr const char* kEnded =
    "the peer's process ended, or it ended this link: its log says why; connect again once it is "
    "back";

void set(int fd, int level, int option, int value) noexcept {
  (void)::setsockopt(fd, level, option, &value, sizeof value);
}

UniqueFd make_socket(int family, Errc code, const std::string& text) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd) return fd;
  const int err = errno;
  throw Error(code, join("socket: ", reason(err), ", for ", text,
                         "; is `ulimit -n` large enough, and the address family enabled?"));
}

[[noreturn]] void cannot_connect(const Address& address, int err) {
  throw Error(Errc::kHandshake,
              join("connect: ", reason(err), ", to the data port ", to_string(address),
                   "; is the decode process running, is this the address of an interface that is "
                   "reachable from here, and does a firewall let the port through?"));
}

}  // namespace

Address parse_address(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int rc = host.empty()
                     ? EAI_NONAME
                     : ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0) {
    throw Error(Errc::kValue, join("address '", host, "': ", ::gai_strerror(rc),
                                   "; must be a numeric IPv4 or IPv6 address"));
  }
  Address address;
  std::copy_n(reinterpret_cast<const char*>(found->ai_addr), found->ai_addrlen,
              reinterpret_cast<char*>(&address.storage));
  address.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

std::string to_string(const Address& address) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const int rc = ::getnameinfo(address.get(), address.length, host, sizeof host, port, sizeof port,
                               NI_NUMERICHOST | NI_NUMERICSERV);
  if (rc != 0) return "(unknown address)";
  if (address.family() == AF_INET6) return join("[", host, "]:", port);
  return join(host, ":", port);
}

std::string host_of(const Address& address) {
  char host[NI_MAXHOST];
  const int rc =
      ::getnameinfo(address.get(), address.length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return rc == 0 ? host : "(unknown address)";
}

std::uint16_t port_of(const Address& address) noexcept {
  if (address.family() == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

UniqueFd connect_to(const Address& address, Nanos deadline) {
  UniqueFd fd = make_socket(address.family(), Errc::kHandshake, to_string(address));
  tune(fd.get());
  if (::connect(fd.get(), address.get(), address.length) == 0) return fd;
  if (errno != EINPROGRESS) cannot_connect(address, errno);
  if (!wait_for(fd.get(), POLLOUT, deadline)) cannot_connect(address, ETIMEDOUT);
  int err = 0;
  socklen_t length = sizeof err;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &length) != 0) err = errno;
  if (err != 0) cannot_connect(address, err);
  return fd;
}

UniqueFd listen_on(const Address& address) {
  UniqueFd fd = make_socket(address.family(), Errc::kConfig, to_string(address));
  // A restarted process gets its port back at once, although streams of its last life linger.
  set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), address.get(), address.length) != 0) {
    const int err = errno;
    throw Error(Errc::kConfig,
                join("bind: ", reason(err), ", for the data port on ", to_string(address),
                     "; is the port free, and the address one of this host's?"));
  }
  if (::listen(fd.get(), kBacklog) != 0) {
    const int err = errno;
    throw Error(Errc::kConfig, join("listen: ", reason(err), ", on ", to_string(address),
                                    "; does another process listen on this port?"));
  }
  return fd;
}

Address local_address(int fd) noexcept {
  Address address;
  address.length = sizeof address.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    address.length = 0;
  }
  return address;
}

void tune(int fd) noexcept {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  // Idle time plus all probes make kDeadPeerSeconds.
  constexpr int kProbes = 4;
  constexpr int kProbeSeconds = kDeadPeerSeconds / (kProbes + 2);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, kDeadPeerSeconds - kProbes * kProbeSeconds);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kDeadPeerSeconds * 1000);
}

std::string path_of(int fd) {
  Address remote;
  remote.length = sizeof remote.storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&remote.storage), &remote.length) != 0) {
    remote.length = 0;
  }
  return join(to_string(local_address(fd)), " -> ", to_string(remote));
}

void shut_and_close(UniqueFd& fd) noexcept {
  if (!fd) return;
  (void)::shutdown(fd.get(), SHUT_RDWR);
  fd.reset();
}

bool wait_for(int fd, short events, Nanos deadline) noexcept {
  pollfd source{fd, events, 0};
  while (true) {
    int timeout_ms = -1;
    if (deadline != kNever) {
      // Rounded up, so that the last round does not spin; in steps, so that it fits an int.
      const Nanos left = std::clamp<Nanos>(deadline - now(), 0, 3600 * kSecond);
      timeout_ms = static_cast<int>((left + kMillisecond - 1) / kMillisecond);
    }
    const int rc = ::poll(&source, 1, timeout_ms);
    if (rc > 0) return true;
    if (rc < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (deadline != kNever && now() >= deadline) return false;
  }
}

bool is_reset(int err) noexcept { return err == ECONNRESET || err == EPIPE; }

std::string lost_text(const char* call, int err, const std::string& path) {
  const char* const remedy =
      is_reset(err) ? kEnded
                    : "the peer's host or process no longer answers: is it up, is it stopped, and "
                      "is the network between the two addresses whole?";
  return join(call, ": ", reason(err), ", on stream ", path, "; ", remedy);
}

std::string closed_text(const std::string& path) {
  return join("recv: end of stream on ", path, "; ", kEnded);
}

}  // namespace rdma_kv::transport::stream
