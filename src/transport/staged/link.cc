#include "transport/staged/link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <list>
#include <numeric>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "cuda/limits.h"
#include "transport/staged/gpu_copies.h"
#include "transport/staged/host_copy.h"
#include "transport/staged/limits.h"
#include "transport/staged/ring.h"
#include "transport/stream/side_stream.h"

namespace rdma_kv::transport::staged {
namespace {

// A write, from its post() until it completes or its notice is sent.
struct Flight {
  Write* write;
  cuda::Slot* gate = nullptr;      // done when what the write waits for is over
  std::uint64_t target_bytes = 0;  // of a chunk
  // What is not cut into chunks yet.
  std::uint32_t layer = 0;      // of the plan's
  std::size_t run = 0;          // in that layer
  std::uint32_t used = 0;       // blocks of that run
  std::uint64_t blocks = 0;     // of that layer that are cut
  std::uint32_t under_way = 0;  // chunks
  bool is_stopping = false;
  bool is_told = false;  // the notice was delivered with the only chunk
};

struct Slot {
  enum class State {
    kFree,
    kGathering,
    kPosting,  // some of it may be with the peer
    kPosted,
    kArrived,  // at the peer, which has not answered
  };
  State state = State::kFree;
  Flight* flight = nullptr;
  std::uint64_t serial = 0;
  std::uint32_t tag = 0;
  bool is_answered = false;  // before the inner link said that it had arrived
  cuda::Slot* copy = nullptr;
  HostCopy host_copy;
  Packing packing;
  std::vector<kv::Run> runs;
  kv::Plan plan;  // of granules
  Write inner;
};

// A write whose bytes are there, and whose notice is not acknowledged.
struct Notified {
  std::uint64_t serial;
  Write* write;
};

class StagedLink final : public Link {
 public:
  StagedLink(const RemoteEnd& remote, const RemoteRing& ring, const kv::Layout& layout,
             std::shared_ptr<const cuda::CopyKernel> kernel, std::uint16_t inner_streams,
             const OpenInner& open_inner);
  ~StagedLink() override;

  bool orders_on_gpu() const noexcept override { return gpu_ != nullptr; }
  void order(Write& write, cuda::After after) override;
  void forget(Write& write) noexcept override;
  Post post(Write& write) noexcept override;
  bool copies_in_post() const noexcept override { return !gpu_ || inner_->copies_in_post(); }
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override;
  bool is_broken() const noexcept override { return is_broken_; }
  Failure failure() const override { return failure_; }
  Quiesce quiesce() noexcept override;
  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  LinkCounters counters() const noexcept override { return inner_->counters(); }
  const char* transport() const noexcept override { return inner_->transport(); }
  std::string path() const override { return join(inner_->path(), " (staged)"); }
  std::string describe() const override { return join(inner_->describe(), "; ", description_); }

 private:
  std::uint64_t offset_of(const Slot& slot) const noexcept {
    return static_cast<std::uint64_t>(&slot - slots_.data()) * shape_.slot_bytes;
  }
  static cuda::Slot* gate_of(const Write& write) noexcept {
    return reinterpret_cast<cuda::Slot*>(write.state);
  }
  void watch(int fd) const;
  void advance() noexcept;
  void open_gates() noexcept;
  bool cut_next() noexcept;
  kv::LayerRange cut(Flight& flight, Slot& slot) noexcept;
  bool is_cut(const Flight& flight) const noexcept;
  bool gather(Slot& slot, kv::LayerRange layers, std::span<const kv::Run> runs, std::uint64_t first,
              std::uint64_t blocks) noexcept;
  bool is_gathered(Slot& slot) noexcept;
  bool feed_inner() noexcept;
  void drop(Slot& slot) noexcept;
  void take_arrivals() noexcept;
  void take_answers() noexcept;
  bool take_answer(std::uint64_t serial) noexcept;
  void release(Slot& slot) noexcept;
  bool is_next_told(const Flight& flight) const noexcept;
  void look_after(Flight& flight) noexcept;
  void close_gate(Flight& flight) noexcept;
  void look_for_failure() noexcept;
  void lose(Failure cause) noexcept;
  void lose(const char* call, cuda::Status status) noexcept;
  bool is_gpu_busy() const noexcept;
  bool is_gpu_done() const noexcept;

  const std::shared_ptr<const kv::Mapping> mapping_;
  const RingShape shape_;
  const std::shared_ptr<EventFd> wake_;  // the driver's thread may signal it after we have gone
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<GpuCopies> gpu_;  // null: this end's blocks are in host memory
  std::shared_ptr<const kv::Mapping> granules_;
  std::vector<std::int32_t> granule_ids_;
  std::vector<Slot> slots_;
  UniqueFd epoll_;
  std::unique_ptr<Link> inner_;
  std::unique_ptr<stream::SideStream> side_;
  std::uint32_t watched_ = EPOLLIN | EPOLLRDHUP;  // of the side stream; 0: not any more
  std::string description_;
  std::list<Flight> flights_;
  std::deque<Slot*> gathering_;  // in the order in which they go over the inner link
  std::vector<Notified> notified_;
  std::vector<Write*> completed_;  // not yet handed to poll()'s caller
  std::uint64_t next_serial_ = 1;
  std::uint64_t turn_ = 0;  // bytes that the CPU may still copy in this turn
  Failure failure_;
  Nanos ask_at_ = 0;
  bool wants_inner_post_ = false;
  bool is_again_ = false;
  bool is_broken_ = false;
  bool is_ending_ = false;
  bool was_sent_ = false;  // at its end, chunks that the peer may still scatter
  bool is_inner_quiesced_ = false;
};

std::string size_text(std::uint64_t bytes) {
  if (bytes % (std::uint64_t{1} << 20) == 0) return join(bytes >> 20, " MiB");
  return join(bytes >> 10, " KiB");
}

StagedLink::StagedLink(const RemoteEnd& remote, const RemoteRing& ring, const kv::Layout& layout,
                       std::shared_ptr<const cuda::CopyKernel> kernel, std::uint16_t inner_streams,
                       const OpenInner& open_inner)
    : mapping_(remote.mapping),
      shape_(ring.shape),
      wake_(std::make_shared<EventFd>()),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  check_shape(shape_, *mapping_);
  ring_ = std::make_unique<Ring>(kernel ? kernel->context() : nullptr, shape_.bytes());
  const char* const far = ring.is_on_gpu ? "on a GPU" : "in host memory";
  description_ = join("staged through ", shape_.slots, " x ", size_text(shape_.slot_bytes),
                      " of host memory at each end: blocks here are ",
                      kernel ? join("on ", kernel->context()->name()) : "in host memory",
                      ", the peer's ", far);
  if (kernel) {
    gpu_ = std::make_unique<GpuCopies>(std::move(kernel), layout, *mapping_, Side::kPrefill);
  }
  const kv::Layout here = layout_of(shape_, ring_->address());
  granules_ = std::make_shared<const kv::Mapping>(
      kv::Mapping::between(here, layout_of(shape_, ring.address)));
  granule_ids_.resize(granules_->src_blocks());
  std::iota(granule_ids_.begin(), granule_ids_.end(), 0);
  slots_ = std::vector<Slot>(shape_.slots);
  RemoteEnd end = remote;
  end.mapping = granules_;
  end.streams_behind = 1;
  inner_ = open_inner(end, here);
  end.streams_behind = 0;
  end.streams_before = inner_streams;
  side_ = std::make_unique<stream::SideStream>(end);
  watch(inner_->fd());
  watch(side_->fd());
  watch(wake_->get());
}

// What a GPU has used is freed aside; before that nothing of the inner link reads the ring any
// more.
StagedLink::~StagedLink() {
  inner_.reset();
  side_.reset();
  if (!gpu_) return;
  std::shared_ptr<GpuCopies> gpu(std::move(gpu_));
  std::shared_ptr<Ring> ring(std::move(ring_));
  release_aside([gpu = std::move(gpu), ring = std::move(ring)]() mutable {
    gpu.reset();  // waits for gathers under way
    ring.reset();
  });
}

void StagedLink::watch(int fd) const {
  epoll_event event{};
  event.events = EPOLLIN | (fd == side_->fd() ? EPOLLRDHUP : 0u);
  if (epoll_ && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return;
  const int err = errno;
  throw Error(Errc::kHandshake, join("epoll: ", reason(err), "; is `ulimit -n` large enough?"));
}

void StagedLink::lose(Failure cause) noexcept {
  if (!is_broken_) failure_ = std::move(cause);
  is_broken_ = true;
}

void StagedLink::lose(const char* call, cuda::Status status) noexcept {
  lose({Errc::kTransfer, join(call, ": ", cuda::reason_of(status),
                              "; a GPU that has failed a process stays failed for it: restart it "
                              "(the kernel's log, dmesg, may name an Xid)")});
}

void StagedLink::break_off(Failure cause) noexcept {
  inner_->break_off(cause);
  lose(std::move(cause));
}

// The moment is taken now, by a copy of nothing that waits on the GPU; chunks start behind it.
void StagedLink::order(Write& write, cuda::After after) {
  cuda::Slot* const gate = gpu_->queue().take();
  if (gate == nullptr) {
    throw Error(Errc::kTransfer, join("more than ", cuda::kMostSlots,
                                      " writes wait for events; wait for some of them first"));
  }
  cuda::Status status = gpu_->queue().wait_for(*gate, after);
  if (status == cuda::kSuccess && !gpu_->queue().waits(*gate)) {  // it is over
    gpu_->queue().give_back(gate);
    return;
  }
  if (status == cuda::kSuccess) status = gpu_->queue().finish(*gate);
  write.state = reinterpret_cast<std::uint64_t>(gate);
  if (status == cuda::kSuccess) return;
  forget(write);
  throw Error(Errc::kValue, join("after=: ", cuda::reason_of(status),
                                 "; give an event or a stream of this process that exists"));
}

void StagedLink::forget(Write& write) noexcept {
  if (write.state != 0) {
    (void)gpu_->queue().stop(*gate_of(write));
    gpu_->queue().give_back(gate_of(write));
  }
  write.state = 0;
}

void StagedLink::close_gate(Flight& flight) noexcept {
  if (flight.gate == nullptr) return;
  forget(*flight.write);
  flight.gate = nullptr;
}

Post StagedLink::post(Write& write) noexcept {
  if (is_broken_) return Post::kBroken;
  if (flights_.size() == kMostFlights) return Post::kQueueFull;
  Flight flight{&write};
  flight.gate = gate_of(write);
  const std::uint64_t bytes = write.plan->bytes();
  flight.target_bytes = bytes <= kWholeBytes
                            ? shape_.slot_bytes
                            : std::clamp(bytes / kLeastChunks, kLeastChunkBytes, shape_.slot_bytes);
  flights_.push_back(flight);
  advance();
  return is_broken_ ? Post::kBroken : Post::kPosted;
}

// One turn of everything.
void StagedLink::advance() noexcept {
  if (is_broken_ || is_ending_) return;
  turn_ = kTurnBytes;
  is_again_ = wants_inner_post_ = false;
  take_answers();
  take_arrivals();
  open_gates();
  bool moves = true;
  while (moves && !is_broken_) {
    moves = cut_next();
    moves |= feed_inner();
  }
  look_for_failure();
}

void StagedLink::open_gates() noexcept {
  for (auto flight = flights_.begin(); flight != flights_.end();) {
    Flight& each = *flight++;  // which look_after() may end
    if (each.gate != nullptr) {
      if (!each.gate->is_done()) continue;
      gpu_->queue().give_back(each.gate);
      each.gate = nullptr;
      each.write->state = 0;
    }
    look_after(each);
  }
}

bool StagedLink::is_cut(const Flight& flight) const noexcept {
  return flight.write->plan->empty() || flight.layer == flight.write->plan->layers().count;
}

// Begins the next chunk. False when there is none, or no slot for it.
bool StagedLink::cut_next() noexcept {
  const auto is_waiting = [&](const Flight& flight) {
    return flight.gate == nullptr && !flight.is_stopping && !is_cut(flight);
  };
  const auto flight = std::find_if(flights_.begin(), flights_.end(), is_waiting);
  if (flight == flights_.end()) return false;
  const auto free = std::find_if(slots_.begin(), slots_.end(),
                                 [](const Slot& slot) { return slot.state == Slot::State::kFree; });
  if (free == slots_.end()) return false;
  Slot& slot = *free;
  const kv::Plan& plan = *flight->write->plan;
  const bool is_first = flight->layer == 0 && flight->blocks == 0;
  const std::span<const kv::Run> runs = plan.runs().subspan(flight->run);
  const std::uint32_t skip = flight->used;
  const kv::LayerRange layers = cut(*flight, slot);
  std::uint64_t blocks = 0;
  for (const kv::Run& run : slot.runs) blocks += run.count;
  slot.packing = pack(*mapping_, blocks);
  slot.serial = next_serial_++;
  const bool is_whole = is_first && is_cut(*flight);
  slot.tag = is_whole && notified_.empty() && is_next_told(*flight) ? flight->write->tag : 0;
  slot.flight = &*flight;
  slot.is_answered = false;
  const std::uint64_t used = payload_at(slot.runs.size()) + slot.packing.layer_bytes * layers.count;
  const auto granules = static_cast<std::size_t>((used + kGranuleBytes - 1) / kGranuleBytes);
  const auto ids = std::span<const std::int32_t>(granule_ids_)
                       .subspan(offset_of(slot) / kGranuleBytes, granules);
  slot.plan.assign(*granules_, ids, ids, {0, 1});
  slot.inner = {};
  slot.inner.id = slot.serial;
  slot.inner.tag = static_cast<std::uint32_t>(&slot - slots_.data()) + 1;
  slot.inner.plan = &slot.plan;
  slot.inner.cursor = kv::Cursor(slot.plan, *granules_);
  slot.inner.owner = &slot;
  encode_chunk({slot.serial, slot.tag, layers, static_cast<std::uint32_t>(slot.runs.size())},
               slot.runs, ring_->data() + offset_of(slot));
  if (!gather(slot, layers, runs, skip, blocks)) return false;
  slot.state = Slot::State::kGathering;
  ++flight->under_way;
  gathering_.push_back(&slot);
  return true;
}

// Whole layers while one of them fits; else blocks of one layer. Puts the runs into the slot.
kv::LayerRange StagedLink::cut(Flight& flight, Slot& slot) noexcept {
  const kv::Plan& plan = *flight.write->plan;
  const std::uint32_t first = plan.layers().first + flight.layer;
  slot.runs.clear();
  const std::uint64_t head = payload_at(plan.runs().size());
  const std::uint64_t layer_bytes = pack(*mapping_, plan.blocks()).layer_bytes;
  if (flight.blocks == 0 && head + layer_bytes <= flight.target_bytes) {
    const std::uint64_t most = (flight.target_bytes - head) / layer_bytes;
    const auto count = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(most, plan.layers().count - flight.layer));
    slot.runs.assign(plan.runs().begin(), plan.runs().end());
    flight.layer += count;
    return {first, count};
  }
  // What each block may cost: its bytes, and a run of its own.
  const std::uint64_t fixed =
      payload_at(1) + kPayloadAlignment + kTensorAlignment * mapping_->tensors();
  const std::uint64_t room = flight.target_bytes - std::min(fixed, flight.target_bytes);
  std::uint64_t left =
      std::max<std::uint64_t>(room / (mapping_->bytes_per_layer() + kChunkRunBytes), 1);
  while (left > 0 && flight.blocks < plan.blocks()) {
    const kv::Run& from = plan.runs()[flight.run];
    const auto take =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(from.count - flight.used, left));
    slot.runs.push_back({from.src_block + flight.used, from.dst_block + flight.used, take});
    left -= take;
    flight.blocks += take;
    flight.used += take;
    if (flight.used < from.count) continue;
    ++flight.run;
    flight.used = 0;
  }
  if (flight.blocks == plan.blocks()) {
    ++flight.layer;
    flight.run = flight.used = 0;
    flight.blocks = 0;
  }
  return {first, 1};
}

bool StagedLink::gather(Slot& slot, kv::LayerRange layers, std::span<const kv::Run> runs,
                        std::uint64_t first, std::uint64_t blocks) noexcept {
  const std::uint64_t payload = offset_of(slot) + payload_at(slot.runs.size());
  if (!gpu_) {
    slot.host_copy = HostCopy(Side::kPrefill, *mapping_, slot.runs, layers, slot.packing,
                              ring_->data() + payload);
    return true;
  }
  slot.copy = gpu_->queue().take();
  if (slot.copy == nullptr) {
    lose({Errc::kTransfer, "no page-locked memory for another copy; its log says why"});
    return false;
  }
  const cuda::Status status = gpu_->start(*slot.copy, ring_->on_device() + payload, slot.packing,
                                          layers, runs, first, blocks);
  if (status == cuda::kSuccess) return true;
  lose("gathering blocks on the GPU", status);
  return false;
}

bool StagedLink::is_gathered(Slot& slot) noexcept {
  if (gpu_) return slot.copy->is_done();
  if (slot.host_copy.go_on(turn_)) return true;
  is_again_ = true;
  return false;
}

// True when something went on its way, or away.
bool StagedLink::feed_inner() noexcept {
  bool moved = false;
  while (!gathering_.empty()) {
    Slot& slot = *gathering_.front();
    if (slot.state == Slot::State::kGathering) {
      if (!is_gathered(slot)) return moved;
      if (gpu_) gpu_->queue().give_back(std::exchange(slot.copy, nullptr));
      if (slot.flight->is_stopping) {
        gathering_.pop_front();
        release(slot);
        moved = true;
        continue;
      }
      slot.state = Slot::State::kPosting;
    }
    switch (inner_->post(slot.inner)) {
      case Post::kPosted:
        slot.state = Slot::State::kPosted;
        side_->expect_ack();
        gathering_.pop_front();
        moved = true;
        break;
      case Post::kQueueFull:
        wants_inner_post_ = true;
        return moved;
      case Post::kAgain:
        is_again_ = true;
        return moved;
      case Post::kBroken:
        lose(inner_->failure());
        return moved;
    }
  }
  return moved;
}

void StagedLink::take_arrivals() noexcept {
  std::array<Completion, 16> done;
  std::size_t got = 0;
  do {
    got = inner_->poll(done.data(), done.size());
    for (std::size_t i = 0; i < got; ++i) {
      Slot& slot = *static_cast<Slot*>(done[i].write->owner);
      slot.state = Slot::State::kArrived;
      if (slot.is_answered) release(slot);
    }
  } while (got == done.size());
  if (inner_->is_broken()) lose(inner_->failure());
}

void StagedLink::take_answers() noexcept {
  std::array<std::uint64_t, 64> serials;
  std::size_t got = 0;
  do {
    got = side_->progress(serials.data(), serials.size());
    for (std::size_t i = 0; i < got; ++i) {
      if (take_answer(serials[i])) continue;
      return lose({Errc::kPeerLost, join("an ACK with number ", serials[i],
                                         ", for which nothing waits; do both sides run the same "
                                         "version?")});
    }
  } while (got == serials.size());
  if (side_->is_broken()) lose(side_->failure());
}

bool StagedLink::take_answer(std::uint64_t serial) noexcept {
  const auto notified = std::find_if(notified_.begin(), notified_.end(),
                                     [&](const Notified& each) { return each.serial == serial; });
  if (notified != notified_.end()) {
    completed_.push_back(notified->write);
    notified_.erase(notified);
    return true;
  }
  for (Slot& slot : slots_) {
    const bool is_sent = slot.state == Slot::State::kPosted || slot.state == Slot::State::kArrived;
    if (!is_sent || slot.serial != serial || slot.is_answered) continue;
    slot.is_answered = true;
    slot.flight->is_told |= slot.tag != 0;
    if (slot.state == Slot::State::kArrived) release(slot);
    return true;
  }
  return false;
}

// The chunk is over.
void StagedLink::release(Slot& slot) noexcept {
  slot.state = Slot::State::kFree;
  Flight& flight = *std::exchange(slot.flight, nullptr);
  --flight.under_way;
  look_after(flight);
}

// Notices come in the order of the writes, but for those that wait for an event.
bool StagedLink::is_next_told(const Flight& flight) const noexcept {
  for (const Flight& each : flights_) {
    if (&each == &flight) return true;
    if (each.write->tag != 0 && each.gate == nullptr && !each.is_stopping) return false;
  }
  return true;
}

// Ends a flight whose last chunk is over.
void StagedLink::look_after(Flight& flight) noexcept {
  if (flight.under_way > 0 || flight.gate != nullptr) return;
  if (!flight.is_stopping && !is_cut(flight)) return;
  const bool needs_notice = flight.write->tag != 0 && !flight.is_told && !flight.is_stopping;
  if (needs_notice && !is_next_told(flight)) return;
  Write& write = *flight.write;
  write.is_abandoned = flight.is_stopping && !flight.is_told;
  flights_.remove_if([&](const Flight& each) { return &each == &flight; });
  if (!needs_notice) {
    completed_.push_back(&write);
    return;
  }
  const std::uint64_t serial = next_serial_++;
  if (side_->send_notice(serial, write.tag)) {
    notified_.push_back({serial, &write});
  } else {
    lose(side_->failure());
  }
}

void StagedLink::abandon(Write& write) noexcept {
  const auto flight = std::find_if(flights_.begin(), flights_.end(),
                                   [&](const Flight& each) { return each.write == &write; });
  if (flight != flights_.end()) {
    flight->is_stopping = true;
    close_gate(*flight);
    return look_after(*flight);
  }
  // Its bytes are there and its notice is on the way: it completes as done.
  const bool is_over = std::find(completed_.begin(), completed_.end(), &write) != completed_.end();
  const bool is_notified = std::any_of(notified_.begin(), notified_.end(),
                                       [&](const Notified& each) { return each.write == &write; });
  if (is_over || is_notified) return;
  forget(write);  // never begun
  write.is_abandoned = true;
  completed_.push_back(&write);
}

bool StagedLink::is_gpu_busy() const noexcept {
  if (!gpu_) return false;
  return std::any_of(slots_.begin(), slots_.end(),
                     [](const Slot& slot) { return slot.copy != nullptr; }) ||
         std::any_of(flights_.begin(), flights_.end(),
                     [](const Flight& flight) { return flight.gate != nullptr; });
}

// Whether what the GPU has done lets this side go on.
bool StagedLink::is_gpu_done() const noexcept {
  if (!gathering_.empty() && gathering_.front()->copy && gathering_.front()->copy->is_done()) {
    return true;
  }
  return std::any_of(flights_.begin(), flights_.end(), [](const Flight& flight) {
    return flight.gate != nullptr && flight.gate->is_done();
  });
}

void StagedLink::look_for_failure() noexcept {
  if (!is_gpu_busy()) return;
  const Nanos at = now();
  if (at < ask_at_) return;
  ask_at_ = at + cuda::kAskForFailure;
  if (const cuda::Status status = gpu_->queue().failure()) lose("copying on the GPU", status);
}

std::size_t StagedLink::poll(Completion* out, std::size_t most) noexcept {
  if (completed_.empty()) advance();
  const std::size_t count = std::min(most, completed_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {completed_[i]};
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

bool StagedLink::arm(bool) noexcept {
  if (is_ending_) {
    return is_inner_quiesced_ || inner_->arm(false);
  }
  if (!completed_.empty() || is_broken_ || is_again_) return false;
  wake_->drain();
  if (is_gpu_busy()) {
    if (!gpu_->queue().announce(wake_) || is_gpu_done()) return false;
  }
  if (!inner_->arm(wants_inner_post_)) return false;
  const std::uint32_t wanted = EPOLLIN | EPOLLRDHUP | (side_->has_unsent() ? EPOLLOUT : 0u);
  if (wanted == watched_) return true;
  epoll_event event{};
  event.events = wanted;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, side_->fd(), &event) == 0) watched_ = wanted;
  return true;
}

// Bytes of this link land as the inner one writes them into decode's ring, and as decode scatters
// what it was told of. The inner link sees to the first; decode says that the second is over, or
// closes the stream, or is gone.
Quiesce StagedLink::quiesce() noexcept {
  wake_->drain();
  if (!std::exchange(is_ending_, true)) {
    was_sent_ = std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
      return slot.state > Slot::State::kGathering && !slot.is_answered;
    });
    if (!side_->is_broken()) (void)side_->send_end();
  }
  std::array<std::uint64_t, 64> answers;
  while (side_->progress(answers.data(), answers.size()) == answers.size()) {
  }
  if (side_->is_broken() && watched_ != 0) {  // a closed stream stays readable for ever
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, side_->fd(), nullptr);
    watched_ = 0;
  }
  if (!is_inner_quiesced_ && inner_->quiesce() == Quiesce::kQuiesced) {
    is_inner_quiesced_ = true;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, inner_->fd(), nullptr);
  }
  const bool is_confirmed = !was_sent_ || side_->is_ended() || side_->is_gone();
  return is_inner_quiesced_ && is_confirmed ? Quiesce::kQuiesced : Quiesce::kInProgress;
}

}  // namespace

std::unique_ptr<Link> open(const RemoteEnd& remote, const RemoteRing& ring,
                           const kv::Layout& layout, std::shared_ptr<const cuda::CopyKernel> kernel,
                           std::uint16_t inner_streams, const OpenInner& open_inner) {
  return std::make_unique<StagedLink>(remote, ring, layout, std::move(kernel), inner_streams,
                                      open_inner);
}

}  // namespace rdma_kv::transport::staged
