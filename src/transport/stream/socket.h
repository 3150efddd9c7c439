// TCP sockets as all streams want them: numeric addresses, non-blocking, noticing a dead peer.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/fd.h"

namespace rdma_kv::transport::stream {

// A peer whose host went away without a word is noticed after this long, whether the stream is
// idle (keep-alive) or has bytes on the way (TCP_USER_TIMEOUT).
inline constexpr int kDeadPeerSeconds = 30;

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family() const noexcept { return storage.ss_family; }
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "10.0.0.1", "::1", "fe80::1%eth0". Never asks a name server, which could block for long.
// Throws Error(kValue).
Address parse_address(const std::string& host, std::uint16_t port);
std::string to_string(const Address& address);  // "10.0.0.1:80", "[::1]:80"
std::uint16_t port_of(const Address& address) noexcept;
std::string host_of(const Address& address);  // "10.0.0.1", "::1"

// Blocks until `deadline`. Throws Error(kHandshake) with address, reason and remedy.
UniqueFd connect_to(const Address& address, Nanos deadline);
// Throws Error(kConfig). Port 0 picks one; see local_address().
UniqueFd listen_on(const Address& address);
Address local_address(int fd) noexcept;

// Sets what a stream needs; for both ends. Options that the kernel refuses are left alone: they
// make a stream faster or quicker to notice a loss, never more correct.
void tune(int fd) noexcept;

// "10.0.0.1:5000 -> 10.0.0.2:6000", local end first. To be kept: a reset socket no longer knows.
std::string path_of(int fd);

// Ends the connection even where a forked child still holds the descriptor.
void shut_and_close(UniqueFd& fd) noexcept;

// Waits until `fd` has one of `events` (POLLIN, ...); false at the deadline.
bool wait_for(int fd, short events, Nanos deadline) noexcept;

// The other end is gone, and with it whatever it would have done with our bytes: it reset the
// connection, or answered with a reset because it had closed. A timeout proves no such thing.
bool is_reset(int err) noexcept;

// How a stream was lost, for Failure and log: the call, the reason, both ends, what to look at.
std::string lost_text(const char* call, int err, const std::string& path);
std::string closed_text(const std::string& path);

}  // namespace rdma_kv::transport::stream
