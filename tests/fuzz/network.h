// A network that is made up: the linker sends the system calls of the core here
// (scripts/lib/fuzz.sh has the list), so that it runs unchanged, on one thread, and every byte that
// "the kernel" puts into its memory is one that the address sanitizer sees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace fuzz::network {

struct Socket {
  std::vector<std::uint8_t> arriving;  // what the core has not read yet begins at `read`
  std::size_t read = 0;
  std::vector<std::uint8_t> sent;    // by the core, all of it
  std::size_t room = SIZE_MAX;       // what the core may still send before it is blocked
  bool has_ended = false;            // the other end closed its half: EOF behind what arrives
  int broken = 0;                    // errno of the next call; those after it find the end
  bool has_told = false;             // that it is broken
  bool is_listening = false;         // `arriving` counts connections
  bool was_blocked = false;          // a send found no room
  bool is_shut_for_writing = false;  // by the core
  bool is_closed = false;            // by the core

  bool is_readable() const { return read < arriving.size() || has_ended || broken != 0; }
  bool is_writable() const { return room > 0 || broken != 0; }
};

// Forgets everything: the first thing that an input does.
void reset();

int make_socket();           // a connected one
Socket& at(int fd);          // aborts when there is none
std::vector<int> sockets();  // all that were ever made, in order
int listener();              // the one that the core listens on
int connect_to_listener();   // a stranger; the core gets it from accept4
// Called with each socket that the core connects: what the peer will answer must arrive in it.
void answer_connections(std::function<void(int fd)> answer);
void arrive(int fd, std::span<const std::uint8_t> bytes);

// How calls behave: bytes that one may move (0: any number), and every how many calls one is
// interrupted (0: never).
void set_pace(std::size_t most_bytes, unsigned interrupt_every);

// Time stands still but for this, and for poll() without an answer.
void pass(std::int64_t nanoseconds);

// Counts what the core did to any socket: a handler that is called again and again must move it.
std::uint64_t progress();

}  // namespace fuzz::network
