#include "engine/peer.h"

#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "base/trace.h"
#include "engine/explain.h"
#include "engine/limits.h"

namespace rdma_kv::engine {
namespace {

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

std::size_t count_of(const kv::BlockIds& ids) noexcept {
  return std::visit([](const auto& list) { return list.size(); }, ids);
}

// As the caller gave them: the deadline was taken some microseconds before the submission, or, on a
// busy machine, so long before it that it was over by then.
double seconds_between(Nanos begin, Nanos end) noexcept {
  constexpr Nanos kStep = kMillisecond / 10;
  return static_cast<double>((std::max<Nanos>(end - begin, 0) + kStep / 2) / kStep) / 1e4;
}

}  // namespace

std::shared_ptr<Peer> Peer::make(Reactor& reactor, std::shared_ptr<const kv::Mapping> mapping,
                                 std::string name, std::uint64_t epoch,
                                 std::unique_ptr<transport::Link> link) {
  const int fd = link->fd();
  std::shared_ptr<Peer> peer(
      new Peer(reactor, std::move(mapping), std::move(name), epoch, std::move(link)),
      DeleteInOwner<Peer>());
  reactor.add(fd, EPOLLONESHOT, [weak = std::weak_ptr<Peer>(peer)](std::uint32_t) {
    if (const auto self = weak.lock()) self->on_reactor();
  });
  const std::lock_guard lock(peer->mutex_);
  peer->hand_over();
  return peer;
}

Peer::Peer(Reactor& reactor, std::shared_ptr<const kv::Mapping> mapping, std::string name,
           std::uint64_t epoch, std::unique_ptr<transport::Link> link)
    : reactor_(reactor),
      mapping_(std::move(mapping)),
      name_(std::move(name)),
      epoch_(epoch),
      transport_(link->transport()),
      path_(link->path()),
      most_runs_(link->most_runs()),
      orders_on_gpu_(link->orders_on_gpu()),
      begins_early_(link->begins_early()),
      description_(link->describe()),
      link_(std::move(link)) {}

Peer::~Peer() {
  close(now());
  if (link_) reactor_.remove(link_->fd());  // unquiesced: nobody is left to tell
}

std::unique_lock<std::mutex> Peer::enter() const noexcept {
  entering_.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  entering_.fetch_sub(1, std::memory_order_relaxed);
  return lock;
}

void Peer::give_way() const noexcept {
  if (entering_.load(std::memory_order_relaxed) == 0) return relax();
  const Nanos until = now() + kGiveWay;
  do {
    ::sched_yield();
  } while (entering_.load(std::memory_order_relaxed) > 0 && now() < until);
}

std::unique_ptr<kv::Plan> Peer::take_plan() {
  const auto lock = enter();
  if (spare_plans_.empty()) return std::make_unique<kv::Plan>();
  auto plan = std::move(spare_plans_.back());
  spare_plans_.pop_back();
  return plan;
}

// What the link began before a write's ids were checked; ends it when the write does not come.
class Peer::HeadStart {
 public:
  HeadStart(Peer& peer, std::size_t blocks, kv::LayerRange layers) : peer_(peer) {
    if (!peer_.begins_early_ || blocks == 0) return;
    const auto lock = peer_.enter();
    if (peer_.link_ && !peer_.is_ending_ && peer_.queued_.empty() && peer_.moving_.empty()) {
      peer_.link_->expect(write_, blocks, layers);
    }
  }
  ~HeadStart() {
    if (write_.state == 0) return;
    const auto lock = peer_.enter();
    if (peer_.link_) peer_.link_->forget(write_);
  }
  HeadStart(const HeadStart&) = delete;
  HeadStart& operator=(const HeadStart&) = delete;

  // With the peer's lock.
  void hand_to(transport::Write& write) noexcept { write.state = std::exchange(write_.state, 0); }

 private:
  Peer& peer_;
  transport::Write write_;
};

std::shared_ptr<Transfer> Peer::write(kv::BlockIds src, kv::BlockIds dst, kv::LayerRange layers,
                                      Label label, Nanos deadline, Then then, cuda::After after) {
  auto plan = take_plan();
  HeadStart early(*this, after.kind == cuda::After::Kind::kNothing ? count_of(src) : 0, layers);
  trace(Stage::kBegun);
  plan->assign(*mapping_, src, dst, layers);
  trace(Stage::kPlanned);
  if (plan->runs().size() > most_runs_) {
    throw Error(Errc::kValue,
                join(plan->runs().size(), " runs of neighbouring blocks in one write; ", transport_,
                     " takes at most ", most_runs_, ": split the write; nothing was written"));
  }
  auto transfer = std::make_shared<Transfer>(shared_from_this(), std::move(plan), label, deadline);
  const auto lock = enter();
  if (!is_alive()) {
    throw Error(Errc::kPeerLost,
                join("write of ", name_of(*transfer->plan_), " to ", name_, " over ", path_,
                     ": the link is down: ",
                     failure_ ? failure_->what() : "it was closed; connect again to go on"));
  }
  if (revoked_.contains(label.tag)) {
    throw Error(Errc::kRevoked, revoked(*transfer));
  }
  if (transfer->write_.plan->empty() &&
      transfer->write_.tag == 0) {  // nothing to move, nobody to tell
    complete(*transfer, std::nullopt);
    return transfer;
  }
  early.hand_to(transfer->write_);
  if (after.kind != cuda::After::Kind::kNothing) link_->order(transfer->write_, after);
  transfer->write_.id = next_id_++;
  transfer->write_.cursor = kv::Cursor(*transfer->plan_, *mapping_);
  queued_.push_back(transfer);
  trace(Stage::kSubmitted);
  next_deadline_ = std::min(next_deadline_, deadline);
  if (then == Then::kWait || is_driven_) return transfer;
  if (link_->copies_in_post()) {
    call_soon();
  } else {
    progress();
    hand_over();
  }
  return transfer;
}

bool Peer::drive(Transfer& transfer, Nanos deadline) noexcept {
  auto lock = enter();
  if (is_driven_ || transfer.is_done()) return transfer.is_done();
  is_driven_ = true;
  Nanos spin_end = now() + kSpin;
  while (true) {
    const bool moved = progress();
    const Nanos at = now();
    if (at >= next_deadline_) check_deadlines(at);
    if (transfer.is_done() || at >= deadline) break;
    if (moved) spin_end = at + kSpin + (link_ ? link_->patience() : 0);
    if (at >= spin_end) break;
    if (entering_.load(std::memory_order_relaxed) == 0) {
      relax();
      continue;
    }
    lock.unlock();
    give_way();
    lock.lock();
  }
  is_driven_ = false;
  if (has_work()) hand_over();
  return transfer.is_done();
}

bool Peer::progress() noexcept {
  if (!link_) return false;
  bool moved = false;
  if (!is_ending_) {
    moved = post_queued();
    moved |= collect();
    if (link_->is_broken()) {
      begin_end(link_->failure());
      moved = true;
    }
  }
  if (is_ending_) continue_end();
  return moved;
}

bool Peer::post_queued() noexcept {
  is_queue_full_ = false;
  is_again_ = false;
  bool moved = false;
  std::uint64_t bytes = 0;
  while (!queued_.empty()) {
    if (bytes >= kPostTurnBytes) {
      is_again_ = true;
      return true;
    }
    Transfer& front = *queued_.front();
    if (front.state_ == State::kQueued) {
      front.state_ = State::kMoving;
      front.stats_.started = now();
    }
    switch (link_->post(front.write_)) {
      case transport::Post::kPosted:
        moved = true;
        bytes += front.stats_.bytes;
        start_moving(std::move(queued_.front()));
        queued_.pop_front();
        break;
      case transport::Post::kQueueFull:
        is_queue_full_ = true;
        return moved;
      case transport::Post::kAgain:
        is_again_ = true;
        return true;
      case transport::Post::kBroken:
        return moved;
    }
  }
  return moved;
}

void Peer::start_moving(std::shared_ptr<Transfer> transfer) noexcept {
  transfer->slot_ = moving_.size();
  moving_.push_back(std::move(transfer));
}

bool Peer::collect() noexcept {
  std::array<transport::Completion, 64> done;
  bool any = false;
  std::size_t got = 0;
  do {
    got = link_->poll(done.data(), done.size());
    for (std::size_t i = 0; i < got; ++i) {
      auto& transfer = *static_cast<Transfer*>(done[i].write->owner);
      const bool was_stopped = transfer.write_.is_abandoned;
      complete(transfer, was_stopped ? transfer.stop_cause_ : std::nullopt);
      any = true;
    }
  } while (got == done.size());
  return any;
}

void Peer::complete(Transfer& transfer, std::optional<Error> error) noexcept {
  // The last reference may be the list's own.
  std::shared_ptr<Transfer> keep;
  if (transfer.slot_ < moving_.size() && moving_[transfer.slot_].get() == &transfer) {
    keep = std::move(moving_[transfer.slot_]);
    if (transfer.slot_ + 1 < moving_.size()) {
      moving_[transfer.slot_] = std::move(moving_.back());
      moving_[transfer.slot_]->slot_ = transfer.slot_;
    }
    moving_.pop_back();
  }
  transfer.state_ = error ? State::kFailed : State::kDone;
  if (error) {
    ++counters_.transfers_failed;
  } else {
    ++counters_.transfers_done;
    counters_.blocks_written += transfer.stats_.blocks;
    counters_.bytes_written += transfer.stats_.bytes;
    counters_.runs_written += transfer.stats_.runs;
  }
  auto plan = transfer.finish(std::move(error));
  if (spare_plans_.size() < kMostSparePlans) spare_plans_.push_back(std::move(plan));
}

void Peer::cancel(Transfer& transfer) noexcept {
  const auto lock = enter();
  if (transfer.is_done() || transfer.state_ == State::kStopping) return;
  const Error cause(Errc::kCancelled,
                    join("write of ", name_of(*transfer.plan_), " to ", name_, " over ", path_,
                         " was cancelled by the caller; what it had written is "
                         "there: write those blocks again before they are used"));
  const auto is_it = [&](const auto& other) { return other.get() == &transfer; };
  auto found = std::find_if(queued_.begin(), queued_.end(), is_it);
  const bool is_queued = found != queued_.end();
  auto shared = is_queued ? *found : *std::find_if(moving_.begin(), moving_.end(), is_it);
  stop(std::move(shared), cause, now());
  if (is_driven_) return;
  progress();
  hand_over();
}

std::string Peer::revoked(const Transfer& transfer) const {
  return join("write of ", name_of(*transfer.plan_), " to ", name_, " over ", path_,
              ": decode has revoked tag ", transfer.tag(),
              ": its request was aborted there and the blocks may belong to another one; drop the "
              "request, or have decode allow() the tag before it is used again");
}

std::vector<std::shared_ptr<Transfer>> Peer::revoke(std::uint32_t tag) {
  const auto lock = enter();
  revoked_.add(tag);
  std::vector<std::shared_ptr<Transfer>> left;
  const auto look = [&](const std::shared_ptr<Transfer>& transfer) {
    if (transfer->tag() == tag) left.push_back(transfer);
  };
  for (const auto& transfer : queued_) look(transfer);
  for (const auto& transfer : moving_) look(transfer);
  for (const auto& transfer : left) {
    if (transfer->state_ == State::kStopping) continue;
    stop(transfer, Error(Errc::kRevoked, revoked(*transfer)), now());
  }
  if (!left.empty() && !is_driven_) {
    progress();
    hand_over();
  }
  std::erase_if(left, [](const auto& transfer) { return transfer->is_done(); });
  return left;
}

void Peer::allow(std::uint32_t tag) noexcept {
  const auto lock = enter();
  revoked_.remove(tag);
}

std::vector<UnquiescedWrite> Peer::unquiesced() const {
  const auto lock = enter();
  return unquiesced_;
}

void Peer::confirm_quiesced() noexcept {
  const auto lock = enter();
  if (!is_ending_) return;
  if (unquiesced_.empty()) fail_all(failure_->code(), failure_->what());
  unquiesced_.clear();
  let_go_of_link();
}

void Peer::stop(std::shared_ptr<Transfer> transfer, Error cause, Nanos at) noexcept {
  const bool was_posted = transfer->state_ != State::kQueued;
  const auto found = std::find(queued_.begin(), queued_.end(), transfer);
  if (found != queued_.end()) {
    queued_.erase(found);
    if (!was_posted) {  // nothing of it is under way
      if (link_) link_->forget(transfer->write_);
      complete(*transfer, std::move(cause));
      return;
    }
    start_moving(transfer);
  }
  transfer->state_ = State::kStopping;
  transfer->stop_cause_ = std::move(cause);
  transfer->stop_deadline_ = at + kStopGrace;
  next_deadline_ = std::min(next_deadline_, transfer->stop_deadline_);
  if (link_ && !is_ending_) link_->abandon(transfer->write_);
}

void Peer::check_deadlines(Nanos at) noexcept {
  const auto late = [&](const Transfer& transfer) {
    return Error(
        Errc::kTimeout,
        join("write of ", name_of(*transfer.plan_), " to ", name_, " over ", path_,
             " did not finish within ",
             seconds_between(transfer.stats_.submitted, transfer.deadline_), " s; it waited for ",
             transfer.state_ == State::kQueued ? "earlier writes to this peer"
                                               : "the peer to take or confirm the bytes",
             "; is the peer alive and KVCACHE_TIMEOUT_S long enough?"));
  };
  std::vector<std::shared_ptr<Transfer>> expired;
  bool is_stuck = false;
  const auto look = [&](const std::shared_ptr<Transfer>& transfer) {
    if (transfer->state_ == State::kStopping) {
      is_stuck |= transfer->stop_deadline_ <= at;
    } else if (transfer->deadline_ <= at) {
      expired.push_back(transfer);
    }
  };
  for (const auto& transfer : queued_) look(transfer);
  for (const auto& transfer : moving_) look(transfer);
  if (!is_ending_) {
    for (auto& transfer : expired) stop(transfer, late(*transfer), at);
    if (is_stuck && link_) {
      link_->break_off({Errc::kPeerLost,
                        join("a write that had to stop did not within ", kStopGrace / kMillisecond,
                             " ms, so its link was ended; connect again to go on")});
    }
  }
  if (is_ending_ || is_stuck) progress();
  next_deadline_ = next_deadline();
}

Nanos Peer::next_deadline() const noexcept {
  // A link that lingers is looked at by tick().
  if (is_ending_) return unquiesced_.empty() ? now() + kQuiescePoll : kNever;
  Nanos next = kNever;
  for (const auto& transfer : queued_) next = std::min(next, transfer->deadline_);
  for (const auto& transfer : moving_) {
    next = std::min(next, transfer->state_ == State::kStopping ? transfer->stop_deadline_
                                                               : transfer->deadline_);
  }
  return next;
}

void Peer::begin_end(const transport::Failure& cause) noexcept {
  is_alive_.store(false, std::memory_order_release);
  is_ending_ = true;
  is_queue_full_ = is_again_ = false;  // nothing is posted any more: do not come back for it
  quiesce_deadline_ = now() + kQuiesceGrace;
  next_deadline_ = now();
  failure_.emplace(cause.code, join("link to ", name_, " over ", path_, ": ", cause.what));
}

void Peer::continue_end() noexcept {
  if (link_->quiesce() == transport::Quiesce::kQuiesced) {
    if (unquiesced_.empty()) {
      fail_all(failure_->code(), failure_->what());
    } else {
      unquiesced_.clear();
      log(LogLevel::kInfo, join("link to ", name_, " over ", transport_,
                                ": the peer confirmed at last that nothing of it can land"));
    }
    let_go_of_link();
  } else if (now() >= quiesce_deadline_) {
    give_up_quiescing();
  }
}

// Its writes end, and say so; the link stays and is asked on, so that the blocks are known to be
// safe as soon as they are.
void Peer::give_up_quiescing() noexcept {
  quiesce_deadline_ = kNever;
  const auto keep = [&](const Transfer& transfer) {
    const kv::Plan& plan = *transfer.plan_;
    unquiesced_.push_back(
        {transfer.tag(), plan.layers(), {plan.runs().begin(), plan.runs().end()}});
  };
  for (const auto& transfer : moving_) keep(*transfer);
  // The front of the queue may be partly posted.
  if (!queued_.empty() && queued_.front()->state_ != State::kQueued) keep(*queued_.front());
  fail_all(Errc::kNotQuiesced,
           join(failure_->what(), "; the peer did not confirm within ", kQuiesceGrace / kSecond,
                " s that nothing of it can land any more: do not reuse the blocks, on either side, "
                "while unquiesced() lists them"));
  if (unquiesced_.empty()) let_go_of_link();  // nothing was under way
}

void Peer::fail_all(Errc code, const std::string& why) noexcept {
  const auto fail = [&](Transfer& transfer) {
    // The peer's loss does not hide why this one was stopped.
    if (transfer.stop_cause_ && code != Errc::kNotQuiesced) {
      complete(transfer, transfer.stop_cause_);
      return;
    }
    // What the link never saw cannot land, whatever the rest may do.
    const bool was_posted = transfer.state_ != State::kQueued;
    const Errc own = was_posted ? code : Errc::kPeerLost;
    const std::string first = transfer.stop_cause_
                                  ? join(transfer.stop_cause_->what(), "; then the ")
                                  : join("write of ", name_of(*transfer.plan_), " failed: ");
    complete(transfer, Error(own, first + (was_posted ? why : failure_->what())));
  };
  for (const auto& transfer : std::exchange(queued_, {})) fail(*transfer);
  while (!moving_.empty()) {
    const auto transfer = moving_.back();
    fail(*transfer);
  }
}

void Peer::let_go_of_link() noexcept {
  counters_.link = link_->counters();
  is_ending_ = false;
  next_deadline_ = kNever;
  // A handler may be waiting for our lock, so the reactor forgets the descriptor on its own thread.
  std::shared_ptr<transport::Link> link(std::move(link_));
  reactor_.post([&reactor = reactor_, link] { reactor.remove(link->fd()); });
}

void Peer::lose(const std::string& why) noexcept {
  const auto lock = enter();
  if (!link_ || is_ending_) return;
  const transport::Failure cause{Errc::kPeerLost, why};
  link_->break_off(cause);
  begin_end(cause);
  if (is_driven_) return;
  progress();
  hand_over();
}

void Peer::end_soon(const char* why) noexcept {
  const auto lock = enter();
  if (!link_ || has_work() || is_driven_) return;
  begin_end({Errc::kPeerLost, why});
  progress();
  hand_over();
}

bool Peer::is_gone() const noexcept {
  const auto lock = enter();
  return !link_;
}

void Peer::close(Nanos deadline) noexcept {
  Peer* const self = this;
  close_all({&self, 1}, deadline);
}

void Peer::close_all(std::span<Peer* const> peers, Nanos deadline) noexcept {
  std::vector<Peer*> open(peers.begin(), peers.end());
  std::vector<pollfd> events;
  while (true) {
    events.clear();
    bool may_sleep = true;
    std::erase_if(open, [&](Peer* peer) {
      const auto lock = peer->enter();
      if (peer->continue_close(deadline)) return true;
      events.push_back({peer->link_->fd(), POLLIN, 0});
      may_sleep &= peer->link_->arm(peer->is_queue_full_) && !peer->is_again_;
      return false;
    });
    if (open.empty()) return;
    // Without their locks: the reactor leaves the links alone or helps; it never takes one away
    // for good.
    if (may_sleep) {
      ::poll(events.data(), events.size(), 1);
    } else {
      open.front()->give_way();
    }
  }
}

bool Peer::continue_close(Nanos deadline) noexcept {
  is_alive_.store(false, std::memory_order_release);
  if (!link_ || !unquiesced_.empty()) return true;
  const bool is_idle = queued_.empty() && moving_.empty();
  if (!is_ending_ && (is_idle || now() >= deadline)) {
    const transport::Failure cause{Errc::kPeerLost,
                                   "it was closed by this side; connect again to go on"};
    if (!is_idle) link_->break_off(cause);
    begin_end(cause);
  }
  progress();
  if (now() >= next_deadline_) check_deadlines(now());
  return !link_ || !unquiesced_.empty();
}

void Peer::tick() noexcept { on_reactor(); }

void Peer::on_reactor() noexcept {
  is_called_ = false;
  // Looked at without the lock, too: who drives a long write holds it nearly always, and everything
  // else of this engine would wait here.
  if (is_driven_) return;
  give_way();
  const auto lock = enter();
  if (is_driven_ || !link_) return;  // who drives sees to it
  progress();
  const Nanos at = now();
  if (at >= next_deadline_) check_deadlines(at);
  hand_over();
}

void Peer::call_soon() noexcept {
  if (is_called_.exchange(true)) return;
  reactor_.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->on_reactor();
  });
}

void Peer::hand_over() noexcept {
  if (!link_) return;
  if (is_again_ || !link_->arm(is_queue_full_)) {
    call_soon();
  } else {
    reactor_.modify(link_->fd(), EPOLLIN | EPOLLONESHOT);
  }
  if (is_ending_ && unquiesced_.empty()) {
    next_deadline_ = std::min(next_deadline_, now() + kQuiescePoll);
  }
  if (next_deadline_ != kNever) reactor_.wake_at(next_deadline_);
}

std::optional<Error> Peer::failure() const {
  const auto lock = enter();
  return failure_;
}

TransferStats Peer::stats_of(const Transfer& transfer) const noexcept {
  const auto lock = enter();
  return transfer.stats_;
}

PeerCounters Peer::counters() const {
  const auto lock = enter();
  PeerCounters counters = counters_;
  if (link_) counters.link = link_->counters();
  counters.queued = queued_.size() + moving_.size();
  return counters;
}

}  // namespace rdma_kv::engine
