// A link's connection to the peer's data port when its bytes travel another way (rdma, cma, shm):
// tells at once when the peer's process is gone, carries notices, and ends the link in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/fd.h"
#include "transport/link.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::stream {

// Owned and called by one link, under the engine's peer lock. Frames are those of docs/wire.md.
class SideStream {
 public:
  // Connects, shows the token and waits for the peer's welcome: blocks until remote.deadline.
  // Throws Error(kHandshake) with address, reason and remedy.
  explicit SideStream(const RemoteEnd& remote);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  // Poll for EPOLLIN; EPOLLOUT only while has_unsent(); stop polling it once is_broken(), because
  // it stays readable then. -1 never.
  int fd() const noexcept;
  bool has_unsent() const noexcept;

  // Queues one small frame and sends what the socket takes. False when the stream is broken.
  [[nodiscard]] bool send_notice(std::uint64_t transfer, std::uint32_t tag) noexcept;
  // Something that went another way will be answered by an ACK here, as a notice is.
  void expect_ack() noexcept;
  [[nodiscard]] bool send_end() noexcept;  // asks the peer to end the link; answered by ended()

  // Reads and writes what it can without blocking. Puts the ids of acknowledged notices in `out`;
  // returns how many; call again when that is `most`. Takes note of EOF and errors.
  [[nodiscard]] std::size_t progress(std::uint64_t* out, std::size_t most) noexcept;

  bool is_ended() const noexcept;   // the peer said that nothing of this link can land any more
  bool is_broken() const noexcept;  // EOF, reset or nonsense; is_ended() may be true too
  bool is_gone() const noexcept;  // EOF or reset: the peer's end of the link, or its process, ended
  Failure failure() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rdma_kv::transport::stream
