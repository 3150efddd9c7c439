// One stream of a link: gathers the part of a write that it carries straight from the blocks.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "kv/plan.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/tcp/limits.h"

namespace rdma_kv::transport::tcp {

class PartSender {
 public:
  enum class Sent {
    kAll,      // nothing is left to send
    kBlocked,  // the socket takes no more now
    kTurn,     // the turn's bytes are used up
    kError,    // errno says why
  };

  // Takes over a welcomed stream.
  explicit PartSender(UniqueFd fd);

  // Starts a part. Only when idle; `runs` is copied, the mapping must outlive the part.
  void begin(std::uint64_t transfer, const stream::WriteHead& head, std::span<const kv::Run> runs,
             const kv::Mapping& mapping);
  // Queues END. Only when idle.
  void say_end();
  // Whether stop() would leave out payload, now or, before anything was sent, the whole part.
  bool can_stop() const noexcept;
  // Leaves out what comes after the DATA frame under way, and says ABORT after it. Returns false
  // when not a byte of the part had been sent: then nothing is said and the part is forgotten.
  bool stop() noexcept;
  // Forgets everything unsent; for a stream that is being closed.
  void discard() noexcept;

  [[nodiscard]] Sent send(std::size_t& turn_bytes) noexcept;
  bool is_idle() const noexcept {
    return first_ == count_ && control_.empty() && left_ == 0 && frame_left_ == 0 && !says_abort_;
  }

  // Whether some of this transfer, its ABORT included, is still to be sent.
  bool is_sending(std::uint64_t transfer) const noexcept {
    return transfer_ == transfer && !is_idle();
  }

  int fd() const noexcept { return fd_.get(); }
  UniqueFd& owned_fd() noexcept { return fd_; }
  const std::string& path() const noexcept { return path_; }
  std::uint64_t calls() const noexcept { return calls_; }
  std::uint64_t iovecs() const noexcept { return iovecs_; }

 private:
  static constexpr std::size_t kFramesPerBatch = kBatchBytes / kFrameBytes + 2;

  void gather() noexcept;
  std::size_t first_unsent_header() const noexcept;
  bool next_extent() noexcept;
  void advance(std::size_t bytes) noexcept;

  UniqueFd fd_;
  std::string path_;

  // The part.
  std::uint64_t transfer_ = 0;
  std::vector<kv::Run> runs_;
  kv::Cursor cursor_;
  std::array<kv::Extent, 64> extents_;  // made by the cursor, not yet gathered
  std::size_t extent_ = 0;
  std::size_t extents_end_ = 0;
  std::uint64_t left_ = 0;        // payload not yet promised by a DATA header
  std::uint64_t frame_left_ = 0;  // payload promised and not yet gathered
  bool says_abort_ = false;
  bool is_untouched_ = false;  // no byte of the part was sent

  // The batch: iovecs [first_, count_) are gathered and unsent.
  std::vector<std::uint8_t> control_;           // a frame other than DATA that goes first
  std::vector<std::uint8_t> control_in_batch_;  // its bytes while iovecs point to them
  std::array<std::array<std::uint8_t, stream::kHeaderBytes>, kFramesPerBatch> headers_;
  std::array<std::size_t, kFramesPerBatch> header_at_;  // iovec of each header
  std::size_t header_count_ = 0;
  std::array<iovec, kIovecs> iov_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;

  std::uint64_t calls_ = 0;
  std::uint64_t iovecs_ = 0;
};

}  // namespace rdma_kv::transport::tcp
