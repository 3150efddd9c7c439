#include "cuda/copy_queue.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "base/trace.h"

namespace rdma_kv::cuda {
namespace {

constexpr std::size_t kPairsAt = 128;  // behind the words, on a cache line of their own

// Copies that were stopped before they began and whose queue has gone. Never freed: the GPU may
// look at them until the process ends.
struct Graveyard {
  std::mutex mutex;
  std::vector<std::unique_ptr<Slot>> slots;
};

Graveyard& graveyard() {
  static auto& yard = *new Graveyard;
  return yard;
}

void sweep() noexcept {
  std::vector<std::unique_ptr<Slot>> over;  // which end without the lock
  Graveyard& yard = graveyard();
  const std::lock_guard lock(yard.mutex);
  for (auto& slot : yard.slots) {
    if (slot->is_done()) over.push_back(std::move(slot));
  }
  std::erase(yard.slots, nullptr);
}

// Blocks [first, first + count) of the runs, one by one.
void fill(BlockPair* pair, std::span<const kv::Run> runs, std::uint64_t first,
          std::uint64_t count) noexcept {
  if (runs.size() == count && first == 0) {  // no two neighbours, and all of them
    for (const kv::Run& run : runs) *pair++ = {run.src_block, run.dst_block};
    return;
  }
  for (const kv::Run& run : runs) {
    if (count == 0) break;
    if (first >= run.count) {
      first -= run.count;
      continue;
    }
    const auto skip = static_cast<std::uint32_t>(first);
    const auto take = static_cast<std::uint32_t>(std::min<std::uint64_t>(run.count - skip, count));
    for (std::uint32_t i = skip; i < skip + take; ++i) {
      *pair++ = {run.src_block + i, run.dst_block + i};
    }
    first = 0;
    count -= take;
  }
}

void signal(void* closure) {
  const std::unique_ptr<std::shared_ptr<EventFd>> wake(
      static_cast<std::shared_ptr<EventFd>*>(closure));
  (*wake)->signal();
}

}  // namespace

Lane::Lane(const std::shared_ptr<const Context>& context)
    : stream(context), arrivals(context, sizeof(std::uint32_t)) {
  const Current current(*context);
  check(api().memset_d8_async(arrivals.address(), 0, sizeof(std::uint32_t), stream.raw()),
        "cuMemsetD8Async");
}

Slot::Slot(std::shared_ptr<const CopyKernel> kernel) : kernel_(std::move(kernel)) {
  make_room(kUsualPairs);
}

CopyWords* Slot::words() const noexcept { return static_cast<CopyWords*>(memory_->data()); }

BlockPair* Slot::pairs() const noexcept {
  return reinterpret_cast<BlockPair*>(static_cast<char*>(memory_->data()) + kPairsAt);
}

void Slot::make_room(std::size_t pairs) {
  if (memory_ && pairs <= room_) return;
  const std::size_t room = std::max(pairs, room_ * 2);
  memory_ = std::make_unique<PinnedMemory>(kernel_->context(), kPairsAt + room * sizeof(BlockPair));
  room_ = room;
}

CopyQueue::CopyQueue(std::shared_ptr<const CopyKernel> kernel)
    : kernel_(std::move(kernel)),
      context_(kernel_->context()),
      main_(std::make_shared<Lane>(context_)) {
  sweep();
  slots_.reserve(kMostSlots);
  free_.reserve(kMostSlots);
  stuck_.reserve(kMostSlots);
}

CopyQueue::~CopyQueue() {
  for (const auto& slot : slots_) {
    if (!slot->is_launched_ || slot->is_done() || stop(*slot)) continue;
    // Begun: it ends by itself, unless the GPU has failed, and then it has ended already.
    const Current current(*context_);
    (void)opened_api().stream_synchronize(slot->lane_->stream.raw());
  }
  const bool has_failed = failure() != kSuccess;
  Graveyard& yard = graveyard();
  {
    const std::lock_guard lock(yard.mutex);
    for (auto& slot : slots_) {
      if (slot->is_launched_ && !slot->is_done() && !has_failed) {
        yard.slots.push_back(std::move(slot));
      }
    }
  }
  sweep();
}

Slot* CopyQueue::take() noexcept {
  std::erase_if(stuck_, [&](Slot* slot) {
    if (!slot->is_done()) return false;
    slot->lane_.reset();
    free_.push_back(slot);
    return true;
  });
  if (free_.empty()) {
    if (slots_.size() == kMostSlots) return nullptr;
    try {
      slots_.push_back(std::make_unique<Slot>(kernel_));
    } catch (const std::exception& error) {
      log(LogLevel::kError, join("no room for another copy: ", error.what()));
      return nullptr;
    }
    free_.push_back(slots_.back().get());
  }
  Slot* const slot = free_.back();
  free_.pop_back();
  slot->lane_ = main_;
  slot->value_ = next_value_++;
  if (next_value_ == 0) next_value_ = 1;
  slot->asks_ = slot->is_launched_ = slot->is_stopped_ = false;
  return slot;
}

void CopyQueue::give_back(Slot* slot) noexcept {
  if (slot->is_launched_ && !slot->is_done()) {
    stuck_.push_back(slot);
    return;
  }
  slot->lane_.reset();
  free_.push_back(slot);
}

Status CopyQueue::wait_for(Slot& slot, After after) noexcept {
  if (after.kind == After::Kind::kNothing) return kSuccess;
  const Current current(*context_);
  const Api& api = opened_api();
  auto* const event = reinterpret_cast<RawEvent>(after.handle);
  auto* const stream = reinterpret_cast<RawStream>(after.handle);
  // What is over need not be waited for, and a copy that waits for nothing begins sooner.
  const Status state =
      after.kind == After::Kind::kEvent ? api.event_query(event) : api.stream_query(stream);
  if (state != kNotReady) return state;
  auto& lane = waiting_[next_waiting_++ % kWaitingStreams];
  if (!lane) {
    try {
      lane = std::make_shared<Lane>(context_);
    } catch (const std::exception& error) {
      log(LogLevel::kWarning, join("a copy waits beside others: ", error.what()));
      lane = main_;
    }
  }
  slot.lane_ = lane;
  slot.asks_ = true;
  if (after.kind == After::Kind::kEvent) {
    return api.stream_wait_event(lane->stream.raw(), event, 0);
  }
  // The event is made where the stream is at home, and may go at once: the wait has taken it in.
  RawContext home = nullptr;
  if (const Status status = api.stream_get_ctx(stream, &home)) return status;
  if (const Status status = api.ctx_push_current(home)) return status;
  RawEvent moment = nullptr;
  Status status = api.event_create(&moment, kEventDisableTiming);
  if (status == kSuccess) {
    status = api.event_record(moment, stream);
    if (status == kSuccess) status = api.stream_wait_event(lane->stream.raw(), moment, 0);
    note(api.event_destroy(moment), "cuEventDestroy");
  }
  (void)api.ctx_pop_current(&home);
  return status;
}

Status CopyQueue::launch_prepared(Slot& slot, CopyJob& job, unsigned thread_blocks) noexcept {
  job.words = reinterpret_cast<CopyWords*>(slot.memory_->on_device());
  job.blocks = reinterpret_cast<const BlockPair*>(slot.memory_->on_device() + kPairsAt);
  job.arrivals = reinterpret_cast<unsigned*>(slot.lane_->arrivals.address());
  job.arrivals_end = slot.lane_->arrived + thread_blocks;
  job.done_value = slot.value_;
  job.asks = slot.asks_ ? 1 : 0;
  const Status status = kernel_->launch(job, thread_blocks, slot.lane_->stream.raw());
  if (status != kSuccess) return status;
  trace(Stage::kLaunched);
  slot.lane_->arrived = job.arrivals_end;
  slot.is_launched_ = true;
  ++slot.lane_->launches;
  return kSuccess;
}

Status CopyQueue::launch(Slot& slot, CopyJob& job, std::span<const kv::Run> runs,
                         std::uint64_t first, std::uint64_t count) noexcept {
  const Current current(*context_);
  try {
    slot.make_room(count);
  } catch (const std::exception& error) {
    log(LogLevel::kError, join("no room for a table of ", count, " blocks: ", error.what()));
    return kOutOfMemory;
  }
  fill(slot.pairs(), runs, first, count);
  trace(Stage::kTabled);
  std::uint64_t pieces = 0;
  for (unsigned t = 0; t < job.tensor_count; ++t) pieces += job.walks[t].pieces * count;
  job.block_count = static_cast<unsigned>(count);
  job.pieces_per_layer = static_cast<unsigned>(pieces);
  pieces *= job.layer_count;
  if (pieces > kMostPieces) return kInvalidValue;
  constexpr unsigned kWarps = kThreadsPerBlock / kLanes;
  const std::uint64_t wanted = std::max<std::uint64_t>((pieces + kWarps - 1) / kWarps, 1);
  const auto most =
      static_cast<std::uint64_t>(kernel_->multiprocessors()) * kBlocksPerMultiprocessor;
  return launch_prepared(slot, job, static_cast<unsigned>(std::min(wanted, most)));
}

Status CopyQueue::copy(Slot& slot, const Bytes& bytes) noexcept {
  const Current current(*context_);
  return opened_api().memcpy_dtod_async(bytes.dst, bytes.src, bytes.bytes,
                                        slot.lane_->stream.raw());
}

// The driver writes the word itself, behind a barrier for the whole system; a kernel that does
// nothing else takes longer.
Status CopyQueue::finish(Slot& slot) noexcept {
  const Current current(*context_);
  if (opened_api().stream_write_value32 != nullptr) {
    const DevicePointer word = slot.memory_->on_device() + offsetof(CopyWords, done);
    const Status status =
        opened_api().stream_write_value32(slot.lane_->stream.raw(), word, slot.value_, 0);
    if (status == kSuccess) {
      trace(Stage::kLaunched);
      slot.is_launched_ = true;
      ++slot.lane_->launches;
      return kSuccess;
    }
  }
  CopyJob nothing{};
  return launch_prepared(slot, nothing, 1);
}

bool CopyQueue::stop(Slot& slot) noexcept {
  if (!slot.is_launched_) return true;
  CopyWords* const words = slot.words();
  if (!slot.asks_) return slot.is_done();
  __atomic_store_n(&words->stop, slot.value_, __ATOMIC_RELEASE);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__atomic_load_n(&words->started, __ATOMIC_ACQUIRE) == slot.value_) return slot.is_done();
  if (!std::exchange(slot.is_stopped_, true)) renew(slot.lane_);
  return true;
}

// Later copies shall not wait behind the event of one that was given up.
void CopyQueue::renew(const std::shared_ptr<Lane>& lane) noexcept {
  for (auto& waiting : waiting_) {
    if (waiting == lane) waiting.reset();
  }
}

Status CopyQueue::failure() noexcept {
  const Current current(*context_);
  const auto state = [](const std::shared_ptr<Lane>& lane) {
    if (!lane) return kSuccess;
    const Status status = opened_api().stream_query(lane->stream.raw());
    return status == kNotReady ? kSuccess : status;
  };
  if (const Status status = state(main_)) return status;
  for (const auto& lane : waiting_) {
    if (const Status status = state(lane)) return status;
  }
  return kSuccess;
}

bool CopyQueue::announce(const std::shared_ptr<EventFd>& wake) noexcept {
  const Current current(*context_);
  const auto add = [&](const std::shared_ptr<Lane>& lane) {
    if (!lane || lane->announced == lane->launches) return true;
    auto closure = std::make_unique<std::shared_ptr<EventFd>>(wake);
    if (opened_api().launch_host_func(lane->stream.raw(), &signal, closure.get()) != kSuccess) {
      return false;
    }
    (void)closure.release();  // signal() frees it
    lane->announced = lane->launches;
    return true;
  };
  bool is_announced = add(main_);
  for (const auto& lane : waiting_) is_announced &= add(lane);
  return is_announced;
}

}  // namespace rdma_kv::cuda
