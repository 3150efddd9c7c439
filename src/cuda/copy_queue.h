// Copies on one GPU: started in order, each known to be done by a word in host memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.h"
#include "cuda/after.h"
#include "cuda/copy_kernel.h"
#include "cuda/limits.h"
#include "cuda/memory.h"
#include "kv/plan.h"

namespace rdma_kv::cuda {

// A stream, and the counter that the thread blocks of its copies share: they run one by one.
struct Lane {
  explicit Lane(const std::shared_ptr<const Context>& context);

  Stream stream;
  DeviceMemory arrivals;
  std::uint32_t arrived = 0;  // what the counter is, or will be, after the last launch
  std::uint64_t launches = 0;
  std::uint64_t announced = 0;  // launches whose end wakes somebody up
};

// Where one copy lives until it is done: its table of blocks, and the words it shares with the GPU.
class Slot {
 public:
  explicit Slot(std::shared_ptr<const CopyKernel> kernel);

  bool is_done() const noexcept {
    return __atomic_load_n(&words()->done, __ATOMIC_ACQUIRE) == value_;
  }
  // Of a copy with a head start that is done: its blocks came too late, launch it again.
  bool was_late() const noexcept {
    return __atomic_load_n(&words()->late, __ATOMIC_RELAXED) == value_;
  }
  bool has_head_start() const noexcept { return gate_ == kWaits && !has_gone_; }

 private:
  friend class CopyQueue;
  CopyWords* words() const noexcept;
  BlockPair* pairs() const noexcept;
  void make_room(std::size_t pairs);

  std::shared_ptr<const CopyKernel> kernel_;  // which may still have to run
  std::unique_ptr<PinnedMemory> memory_;
  std::size_t room_ = 0;  // pairs
  std::shared_ptr<Lane> lane_;
  std::uint32_t value_ = 0;  // of this use: no word of an earlier one equals it
  CopyGate gate_ = kOpen;
  bool has_gone_ = false;  // of kWaits: told to go
  bool is_launched_ = false;
  bool is_stopped_ = false;
};

// Not thread-safe. Nothing here waits for the GPU, but the destructor: for copies that are under
// way. A copy that was stopped before it began, and waits for an event that may never come, is
// buried: its memory is freed once it is known to be over.
class CopyQueue {
 public:
  explicit CopyQueue(std::shared_ptr<const CopyKernel> kernel);  // throws Error
  ~CopyQueue();
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;

  const CopyKernel& kernel() const noexcept { return *kernel_; }

  // A place for one copy; null when too many are on their way, or memory is short.
  Slot* take() noexcept;
  // Of a copy that is done, was stopped, or was never launched.
  void give_back(Slot* slot) noexcept;

  // Makes the copy wait, on the GPU; called before launch(), and at the moment that the user
  // means: what an event or stream takes in later is not waited for.
  [[nodiscard]] Status wait_for(Slot& slot, After after) noexcept;

  // Starts the copy of blocks [first, first + count) of `runs`, in their order. The caller fills
  // the sides, the layers and the walks of `job`.
  [[nodiscard]] Status launch(Slot& slot, CopyJob& job, std::span<const kv::Run> runs,
                              std::uint64_t first, std::uint64_t count) noexcept;
  // Lets the GPU begin with a copy of `count` blocks that are not known yet, for as long as the
  // host takes to find out: it writes nothing before go(). When they never come, give_back().
  [[nodiscard]] Status launch_early(Slot& slot, CopyJob& job, std::uint64_t count) noexcept;
  void go(Slot& slot, std::span<const kv::Run> runs, std::uint64_t count) noexcept;
  // Of a copy that was_late(): launch() may follow.
  void reuse(Slot& slot) noexcept;

  // Starts plain copies, for few and long runs of bytes. Not of a slot that waits.
  struct Bytes {
    std::uint64_t src;
    std::uint64_t dst;
    std::uint64_t bytes;
  };
  [[nodiscard]] bool waits(const Slot& slot) const noexcept { return slot.gate_ == kAsks; }
  [[nodiscard]] Status copy(Slot& slot, const Bytes& bytes) noexcept;
  // Ends a series of copy(): the slot is done once they are.
  [[nodiscard]] Status finish(Slot& slot) noexcept;

  // Asks a copy not to begin. True: it will write nothing, ever. False: it has begun, and is done
  // soon.
  [[nodiscard]] bool stop(Slot& slot) noexcept;

  // Whether the GPU has failed: then nothing that was launched runs any more.
  [[nodiscard]] Status failure() noexcept;

  // Lets the end of every copy that was launched signal `wake`. False when that cannot be had.
  [[nodiscard]] bool announce(const std::shared_ptr<EventFd>& wake) noexcept;

 private:
  void renew(const std::shared_ptr<Lane>& lane) noexcept;
  Status launch_blocks(Slot& slot, CopyJob& job, std::uint64_t count) noexcept;
  Status launch_prepared(Slot& slot, CopyJob& job, unsigned thread_blocks) noexcept;

  std::shared_ptr<const CopyKernel> kernel_;
  std::shared_ptr<const Context> context_;
  std::shared_ptr<Lane> main_;
  std::array<std::shared_ptr<Lane>, kWaitingStreams> waiting_;
  std::size_t next_waiting_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  std::vector<Slot*> stuck_;  // stopped, and not over
  std::uint32_t next_value_ = 1;
};

}  // namespace rdma_kv::cuda
