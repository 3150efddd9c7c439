#include "transport/cuda_ipc/link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/trace.h"
#include "cuda/copy_queue.h"
#include "transport/cuda_ipc/limits.h"
#include "transport/cuda_ipc/target.h"
#include "transport/process/ptracer.h"
#include "transport/stream/side_stream.h"

namespace rdma_kv::transport::cuda_ipc {
namespace {

// A write whose bytes are on their way.
struct Flight {
  Write* write;
  cuda::Slot* slot;
  std::uint64_t bytes;
  bool is_stopping = false;
};

// What must not go while a copy is under way; going may wait for the GPU.
struct Path {
  Path(std::shared_ptr<const cuda::CopyKernel> kernel, const kv::Layout& layout,
       const kv::Mapping& mapping, const Offer& offer)
      : target(kernel->context(), layout, mapping, offer), queue(std::move(kernel)) {}

  Target target;  // declared first: the queue's copies end before it is unmapped
  cuda::CopyQueue queue;
};

class CudaIpcLink final : public Link {
 public:
  CudaIpcLink(const RemoteEnd& remote, const Offer& offer, const kv::Layout& layout)
      : mapping_(remote.mapping),
        wake_(std::make_shared<EventFd>()),
        path_(std::make_unique<Path>(cuda::CopyKernel::of(cuda::only_device(layout)), layout,
                                     *remote.mapping, offer)),
        description_(join("cuda_ipc: one kernel per write on ",
                          path_->queue.kernel().context()->name(), ", accesses of ",
                          path_->target.job().walks[0].width, " bytes, ",
                          path_->target.mapped_bytes(), " bytes of process ", offer.process.pid,
                          " mapped; kernel ", path_->queue.kernel().origin())),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        side_(std::make_shared<stream::SideStream>(remote)) {
    epoll_event side{};
    side.events = watched_;
    epoll_event wake{};
    wake.events = EPOLLIN;
    if (epoll_ && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, side_->fd(), &side) == 0 &&
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_->get(), &wake) == 0) {
      return;
    }
    const int err = errno;
    throw Error(Errc::kHandshake, join("epoll: ", reason(err), "; is `ulimit -n` large enough?"));
  }
  void order(Write& write, cuda::After after) override;
  Post post(Write& write) noexcept override;
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void forget(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override { lose(std::move(cause)); }
  bool is_broken() const noexcept override { return is_broken_; }
  Failure failure() const override { return failure_; }
  Quiesce quiesce() noexcept override;
  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  Nanos patience() const noexcept override;
  bool orders_on_gpu() const noexcept override { return true; }
  LinkCounters counters() const noexcept override { return counters_; }
  const char* transport() const noexcept override { return "cuda_ipc"; }
  std::string describe() const override { return description_; }

 private:
  cuda::Slot* slot_of(const Write& write) const noexcept {
    return reinterpret_cast<cuda::Slot*>(write.state);
  }
  cuda::Status start(Write& write, cuda::Slot& slot) noexcept;
  cuda::Status start_bulk(Write& write, cuda::Slot& slot) noexcept;
  bool is_bulk(const kv::Plan& plan) const noexcept;
  void look_at_copies() noexcept;
  void land(const Flight& flight) noexcept;
  void take_acks() noexcept;
  void unmap() noexcept;
  void lose(Failure cause) noexcept;
  void lose(const char* call, cuda::Status status) noexcept;
  bool have_copies_ended() noexcept;

  const std::shared_ptr<const kv::Mapping> mapping_;
  const std::shared_ptr<EventFd> wake_;  // the driver's thread may signal it after we have gone
  std::unique_ptr<Path> path_;           // empty once it is to be unmapped
  const std::string description_;
  UniqueFd epoll_;
  // Kept open by who unmaps: its closing tells the peer that nothing is mapped any more.
  const std::shared_ptr<stream::SideStream> side_;
  std::uint32_t watched_ = EPOLLIN | EPOLLRDHUP;
  std::vector<Flight> flights_;    // launched
  std::vector<Write*> notified_;   // landed; their notices are not acknowledged
  std::vector<Write*> completed_;  // not yet handed to poll()'s caller
  LinkCounters counters_;
  Failure failure_;
  Nanos ask_at_ = 0;  // when the GPU and the peer's stream are asked whether they have failed
  bool is_time_to_ask_ = false;
  bool is_broken_ = false;
  bool has_gpu_failed_ = false;
  const std::shared_ptr<std::atomic<bool>> is_unmapped_ =
      std::make_shared<std::atomic<bool>>(false);
};

void CudaIpcLink::lose(Failure cause) noexcept {
  if (!is_broken_) failure_ = std::move(cause);
  is_broken_ = true;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, side_->fd(), nullptr);
}

void CudaIpcLink::lose(const char* call, cuda::Status status) noexcept {
  lose({Errc::kTransfer, join(call, ": ", cuda::reason_of(status),
                              "; a GPU that has failed a process stays failed for it: restart it "
                              "(the kernel's log, dmesg, may name an Xid)")});
}

void CudaIpcLink::order(Write& write, cuda::After after) {
  cuda::Slot* const slot = path_ ? path_->queue.take() : nullptr;
  if (slot == nullptr) {
    throw Error(Errc::kTransfer, join("more than ", cuda::kMostSlots,
                                      " writes wait for events; wait for some of them first"));
  }
  write.state = reinterpret_cast<std::uint64_t>(slot);
  const cuda::Status status = path_->queue.wait_for(*slot, after);
  if (status == cuda::kSuccess) return;
  forget(write);
  throw Error(Errc::kValue, join("after=: ", cuda::reason_of(status),
                                 "; give an event or a stream of this process that exists"));
}

void CudaIpcLink::forget(Write& write) noexcept {
  if (write.state != 0 && path_) path_->queue.give_back(slot_of(write));
  write.state = 0;
}

bool CudaIpcLink::is_bulk(const kv::Plan& plan) const noexcept {
  if (plan.empty()) return false;
  std::uint64_t extents = 0;
  for (std::uint32_t t = 0; t < mapping_->tensors(); ++t) {
    extents += mapping_->walk(t).is_dense ? plan.runs().size() : plan.blocks();
  }
  extents *= plan.layers().count;
  return plan.bytes() / extents >= (extents == 1 ? kLeastBulkBytes : kBulkBytes);
}

cuda::Status CudaIpcLink::start_bulk(Write& write, cuda::Slot& slot) noexcept {
  std::array<kv::Extent, 32> extents;
  while (const std::size_t got = write.cursor.next(extents.data(), extents.size())) {
    for (std::size_t i = 0; i < got; ++i) {
      const kv::Extent& extent = extents[i];
      const cuda::CopyQueue::Bytes bytes{extent.src, path_->target.dst_here(*mapping_, extent),
                                         extent.bytes};
      if (const cuda::Status status = path_->queue.copy(slot, bytes)) return status;
      ++counters_.posts;
      ++counters_.work_requests;
    }
  }
  return path_->queue.finish(slot);
}

cuda::Status CudaIpcLink::start(Write& write, cuda::Slot& slot) noexcept {
  const kv::Plan& plan = *write.plan;
  if (!path_->queue.waits(slot) && is_bulk(plan)) return start_bulk(write, slot);
  cuda::CopyJob job = path_->target.job();
  job.first_layer = plan.layers().first;
  job.layer_count = plan.layers().count;
  ++counters_.posts;
  counters_.work_requests += plan.blocks();
  return path_->queue.launch(slot, job, plan.runs(), 0, plan.blocks());
}

Post CudaIpcLink::post(Write& write) noexcept {
  if (is_broken_) return Post::kBroken;
  if (write.state == 0) write.state = reinterpret_cast<std::uint64_t>(path_->queue.take());
  if (write.state == 0) {
    if (!flights_.empty()) return Post::kQueueFull;
    lose({Errc::kTransfer, "no page-locked memory for another copy; its log says why"});
    return Post::kBroken;
  }
  cuda::Slot& slot = *slot_of(write);
  const cuda::Status status = start(write, slot);
  flights_.push_back({&write, &slot, write.plan->bytes()});
  if (status == cuda::kSuccess) return Post::kPosted;
  if (status == cuda::kInvalidValue) {
    lose({Errc::kTransfer, join("a write of ", write.plan->bytes(),
                                " bytes has too many pieces for one kernel; split it by layers")});
  } else {
    lose("starting the copy", status);
  }
  return Post::kBroken;
}

// Its bytes are there.
void CudaIpcLink::land(const Flight& flight) noexcept {
  trace(Stage::kLanded);
  path_->queue.give_back(flight.slot);
  ++counters_.completions;
  Write& write = *flight.write;
  write.state = 0;
  write.is_abandoned = flight.is_stopping;
  if (write.tag == 0 || flight.is_stopping) {
    completed_.push_back(&write);
  } else if (side_->send_notice(write.id, write.tag)) {
    notified_.push_back(&write);
  } else {
    lose(side_->failure());
  }
}

void CudaIpcLink::look_at_copies() noexcept {
  if (flights_.empty()) return;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < flights_.size(); ++i) {
    const Flight flight = flights_[i];
    if (flight.slot->is_done() && !is_broken_) {
      land(flight);
    } else {
      flights_[kept++] = flight;
    }
  }
  const bool has_landed = kept < flights_.size();
  flights_.resize(kept);
  if (has_landed || flights_.empty() || !is_time_to_ask_) return;
  if (const cuda::Status status = path_->queue.failure()) {
    has_gpu_failed_ = true;
    lose("copying on the GPU", status);
  }
}

void CudaIpcLink::take_acks() noexcept {
  std::array<std::uint64_t, 64> ids;
  std::size_t got = 0;
  do {
    got = side_->progress(ids.data(), ids.size());
    for (std::size_t i = 0; i < got; ++i) {
      const auto found = std::find_if(notified_.begin(), notified_.end(),
                                      [&](const Write* write) { return write->id == ids[i]; });
      if (found == notified_.end()) {
        return lose({Errc::kPeerLost, join("an ACK for transfer ", ids[i],
                                           ", which does not wait for it; do both sides run the "
                                           "same version?")});
      }
      completed_.push_back(*found);
      notified_.erase(found);
    }
  } while (got == ids.size());
  if (side_->is_broken()) lose(side_->failure());
}

std::size_t CudaIpcLink::poll(Completion* out, std::size_t most) noexcept {
  // System calls and the driver are left alone while a copy is awaited: a word in memory tells.
  const Nanos at = flights_.empty() ? 0 : now();
  is_time_to_ask_ = at >= ask_at_;
  if (is_time_to_ask_) ask_at_ = at + cuda::kAskForFailure;
  if (!is_broken_) look_at_copies();
  const bool looks = flights_.empty() || !notified_.empty() || is_time_to_ask_;
  if (completed_.empty() && !is_broken_ && looks) take_acks();
  const std::size_t count = std::min(most, completed_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {completed_[i]};
  completed_.erase(completed_.begin(), completed_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void CudaIpcLink::abandon(Write& write) noexcept {
  const auto holds = [&](const std::vector<Write*>& list) {
    return std::find(list.begin(), list.end(), &write) != list.end();
  };
  // Its bytes are there and its notice is on the way: it completes as done.
  if (holds(notified_) || holds(completed_)) return;
  const auto flight = std::find_if(flights_.begin(), flights_.end(),
                                   [&](const Flight& each) { return each.write == &write; });
  if (flight == flights_.end()) {  // never begun
    forget(write);
  } else if (path_->queue.stop(*flight->slot)) {
    path_->queue.give_back(flight->slot);
    write.state = 0;
    flights_.erase(flight);
  } else {
    flight->is_stopping = true;  // it has begun, and is over soon
    return;
  }
  write.is_abandoned = true;
  completed_.push_back(&write);
}

// Copies that were stopped before they began write nothing, ever; the others end by themselves.
bool CudaIpcLink::have_copies_ended() noexcept {
  if (has_gpu_failed_) return true;
  std::erase_if(flights_, [&](const Flight& flight) {
    return flight.slot->is_done() || path_->queue.stop(*flight.slot);
  });
  if (flights_.empty()) return true;
  has_gpu_failed_ = path_->queue.failure() != cuda::kSuccess;
  return has_gpu_failed_;
}

// The peer may free its memory once it has heard of the end, so the mapping goes first. That can
// wait for whatever the GPU does, a model's kernels too: on a thread of its own, which may outlive
// the link. When the peer has closed its half of the stream, or is gone, the writes need not wait
// for that: the thread closes ours.
Quiesce CudaIpcLink::quiesce() noexcept {
  wake_->drain();
  if (path_) {
    if (!have_copies_ended()) {
      (void)path_->queue.announce(wake_);
      return Quiesce::kInProgress;
    }
    flights_.clear();
    unmap();
  }
  if (side_->is_broken()) return Quiesce::kQuiesced;
  if (!is_unmapped_->load(std::memory_order_acquire)) {
    std::array<std::uint64_t, 64> ids;              // which nobody waits for any more
    (void)side_->progress(ids.data(), ids.size());  // the peer may go meanwhile
    return side_->is_broken() ? Quiesce::kQuiesced : Quiesce::kInProgress;
  }
  (void)side_->send_end();
  return Quiesce::kQuiesced;
}

void CudaIpcLink::unmap() noexcept {
  auto end = [path = std::move(path_), done = is_unmapped_, wake = wake_, side = side_]() mutable {
    path.reset();
    done->store(true, std::memory_order_release);
    wake->signal();
  };
  try {
    std::thread(std::move(end)).detach();
  } catch (const std::exception&) {  // no thread to be had: it has been unmapped on the way here
    is_unmapped_->store(true, std::memory_order_release);
  }
}

bool CudaIpcLink::arm(bool) noexcept {
  if (!path_) return true;
  if (!completed_.empty() || is_broken_) return false;
  wake_->drain();
  if (!flights_.empty()) {
    if (!path_->queue.announce(wake_)) return false;
    const bool has_landed = std::any_of(flights_.begin(), flights_.end(),
                                        [](const Flight& each) { return each.slot->is_done(); });
    if (has_landed) return false;
  }
  const std::uint32_t wanted = EPOLLIN | EPOLLRDHUP | (side_->has_unsent() ? EPOLLOUT : 0u);
  if (wanted == watched_) return true;
  epoll_event event{};
  event.events = wanted;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, side_->fd(), &event) == 0) watched_ = wanted;
  return true;
}

Nanos CudaIpcLink::patience() const noexcept {
  std::uint64_t bytes = 0;
  for (const Flight& flight : flights_) {
    if (!path_->queue.waits(*flight.slot)) bytes += flight.bytes;
  }
  return std::min<Nanos>(static_cast<Nanos>(bytes / kLeastBytesPerNano), kMostPatience);
}

}  // namespace

std::unique_ptr<Link> open(const RemoteEnd& remote, const Offer& offer, const kv::Layout& layout) {
  if (remote.mapping->dst_base(0) == 0) {
    throw Error(Errc::kUnavailable,
                "cuda_ipc: the handshake did not tell where the peer's tensors are; do both sides "
                "run the same version?");
  }
  return std::make_unique<CudaIpcLink>(remote, offer, layout);
}

std::unique_ptr<stream::StreamInbound> make_inbound(Reactor& reactor, NoticeSink& sink,
                                                    Origin origin, pid_t prefill) {
  auto end_path = [grant = process::grant_ptrace(prefill)]() mutable { grant.reset(); };
  return stream::make_side_inbound(reactor, sink, std::move(origin), "cuda_ipc",
                                   std::move(end_path), stream::Stops::kAtTheSender,
                                   process::open_process(prefill));
}

}  // namespace rdma_kv::transport::cuda_ipc
