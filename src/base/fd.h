// Owners of file descriptors.
#pragma once

#include <unistd.h>

#include <utility>

namespace rdma_kv {

// Owns one file descriptor; empty is -1.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  void reset(int fd = -1) noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// A counter in the kernel that a poll loop can wait for. Signalling and draining never block.
class EventFd {
 public:
  EventFd();  // throws Error when the process has no descriptor left
  int get() const noexcept { return fd_.get(); }
  void signal() const noexcept;
  void drain() const noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace rdma_kv
