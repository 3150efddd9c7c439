#include "transport/rdma/link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "verbs/status.h"

namespace rdma_kv::transport::rdma {
namespace {

// The id of a work request: its lane, and in bit 0 whether it is the signalled end of a chain.
std::uint64_t id_of(std::size_t lane) noexcept { return std::uint64_t{lane} << 1; }

std::uint32_t length_of(const ibv_send_wr* first, const ibv_send_wr* end) noexcept {
  std::uint32_t count = 0;
  for (; first != end; first = first->next) ++count;
  return count;
}

void add_to(int epoll, int fd, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll, operation, fd, &event) == 0) return;
  const int err = errno;
  throw Error(Errc::kHandshake, join("epoll_ctl: ", reason(err)));
}

}  // namespace

RdmaLink::RdmaLink(LinkParts parts, KeyTable remote_keys, const ChainLimits& limits, std::string to)
    : rail_(std::move(parts.rail)),
      channel_(std::move(parts.channel)),
      queue_(std::move(parts.queue)),
      lanes_(std::move(parts.lanes)),
      side_(std::move(parts.side)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      chain_(rail_->local_keys(), std::move(remote_keys), limits),
      to_(std::move(to)),
      flush_(limits.flush),
      most_sources_(limits.most_sources),
      least_room_(std::clamp(lanes_.front().depth() / 4, kLeastChain, kChain)) {
  if (!epoll_) {
    const int err = errno;
    throw Error(Errc::kHandshake, join("epoll_create1: ", reason(err)));
  }
  finished_.reserve(kPollBatch);
  add_to(epoll_.get(), channel_->fd(), EPOLLIN, EPOLL_CTL_ADD);
  side_events_ = EPOLLIN;
  add_to(epoll_.get(), side_->fd(), side_events_, EPOLL_CTL_ADD);
}

RdmaLink::~RdmaLink() {
  lanes_.clear();  // nothing of ours is sent any more
  take_events();
  if (events_ > 0) verbs::lib().ack_cq_events(queue_->get(), events_);
}

// ---- posting -------------------------------------------------------------------------------

Post RdmaLink::post(Write& write) noexcept {
  if (is_broken()) return Post::kBroken;
  if (write.state == 0) {
    write.state = kBegun;
    posting_ = &write;
    noticed_ = 0;
    chain_.forget();
  }
  if (rest_ != nullptr) {
    if (const Post post = resume(); post != Post::kPosted) return post;
  }
  for (int made = 0; (write.state & kAllPosted) == 0; ++made) {
    // A notice that has begun is finished at once: its write could no longer be abandoned.
    if (made >= kChainsPerPost && (write.state & kNoticeBegun) == 0) return Post::kAgain;
    if (const Post post = post_chain(write); post != Post::kPosted) return post;
  }
  posting_ = nullptr;
  finish_if_done(write);  // a write of nothing, without a notice
  return Post::kPosted;
}

// Posts the next chain, or what is missing of the notices.
Post RdmaLink::post_chain(Write& write) noexcept {
  if (chain_.is_exhausted(write)) {
    if (write.tag != 0) {
      if (const Post post = post_notices(write); post != Post::kPosted) return post;
    }
    write.state |= kAllPosted;
    return Post::kPosted;
  }
  SendLane* const lane = next_lane();
  if (lane == nullptr) return Post::kQueueFull;
  chain_.fill(write, std::min(kChain, lane->room()));
  // The notice rides on the last chain when the other queue pairs can take theirs right away.
  if (chain_.is_last() && write.tag != 0 && others_have_room(*lane)) {
    chain_.append_notice(write.tag);
    write.state |= kNoticeBegun;
    noticed_ |= 1u << (lane - lanes_.data());
  }
  return send(*lane, write, chain_.seal(id_of(static_cast<std::size_t>(lane - lanes_.data()))));
}

// All or none, as far as room can tell: a notice that only some queue pairs got cannot be taken
// back, and would make the link impossible to keep when the write is abandoned.
Post RdmaLink::post_notices(Write& write) noexcept {
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if ((noticed_ >> i & 1) == 0 && lanes_[i].room() == 0) return Post::kQueueFull;
  }
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if ((noticed_ >> i & 1) != 0) continue;
    chain_.fill_notice(write.tag);
    write.state |= kNoticeBegun;
    noticed_ |= 1u << i;
    if (const Post post = send(lanes_[i], write, chain_.seal(id_of(i))); post != Post::kPosted) {
      return post;
    }
  }
  return Post::kPosted;
}

Post RdmaLink::send(SendLane& lane, Write& write, ibv_send_wr* first) noexcept {
  ibv_send_wr* bad = nullptr;
  const int rc = ibv_post_send(lane.queue_pair().get(), first, &bad);
  const std::uint32_t posted = length_of(first, rc == 0 ? nullptr : bad);
  ++counters_.posts;
  counters_.work_requests += posted;
  lane.take_slots(posted);
  rest_ = nullptr;
  if (rc == 0) {
    ++write.outstanding;
    lane.close_chain(write);
    return Post::kPosted;
  }
  // A driver that counts its slots differently: go on from there when a chain has come free.
  if (rc == ENOMEM && !lane.is_idle()) {
    rest_ = bad;
    rest_lane_ = static_cast<std::size_t>(&lane - lanes_.data());
    return Post::kQueueFull;
  }
  fail(Errc::kTransfer, join("ibv_post_send: ", reason(rc), ", ", posted,
                             " of its work requests "
                             "were taken"));
  return Post::kBroken;
}

Post RdmaLink::resume() noexcept { return send(lanes_[rest_lane_], *posting_, rest_); }

// In turn, and only where a chain of some size fits: small ones would waste doorbells.
SendLane* RdmaLink::next_lane() noexcept {
  for (std::size_t tried = 0; tried < lanes_.size(); ++tried) {
    SendLane& lane = lanes_[turn_];
    turn_ = (turn_ + 1) % lanes_.size();
    if (lane.room() >= least_room_) return &lane;
  }
  return nullptr;
}

bool RdmaLink::others_have_room(const SendLane& lane) const noexcept {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [&](const SendLane& other) { return &other == &lane || other.room() > 0; });
}

void RdmaLink::abandon(Write& write) noexcept {
  if ((write.state & kAllPosted) != 0 || is_broken()) return;  // too late, or all ends anyway
  if (posting_ == &write && ((write.state & kNoticeBegun) != 0 || rest_ != nullptr)) {
    // Half a notice or half a chain cannot be taken back, and its end will not be posted.
    break_off({Errc::kPeerLost, "a write was stopped while its last part was being posted"});
    return;
  }
  write.is_abandoned = true;
  write.state |= kAllPosted;
  if (posting_ == &write) {
    posting_ = nullptr;
    chain_.forget();
  }
  finish_if_done(write);
}

// ---- completions ---------------------------------------------------------------------------

std::size_t RdmaLink::poll(Completion* out, std::size_t most) noexcept {
  const std::size_t seen = drain();
  if (std::exchange(is_armed_, false)) {
    take_events();
    look_at_side();
  } else if (seen == 0 && ++polls_ % kPollsPerLook == 0) {
    look_at_side();
  }
  const std::size_t count = std::min(most, finished_.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {finished_[i]};
  finished_.erase(finished_.begin(), finished_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

std::size_t RdmaLink::drain() noexcept {
  std::array<ibv_wc, kPollBatch> completions;
  std::size_t seen = 0;
  for (;;) {
    const int got = queue_->poll(completions.data(), kPollBatch);
    if (got < 0) {
      fail(Errc::kTransfer, "ibv_poll_cq: the completion queue failed");
      return seen;
    }
    for (int i = 0; i < got; ++i) complete(completions[static_cast<std::size_t>(i)]);
    seen += static_cast<std::size_t>(got);
    if (got < kPollBatch) break;
  }
  counters_.completions += seen;
  return seen;
}

void RdmaLink::complete(const ibv_wc& completion) noexcept {
  const bool is_good = completion.status == IBV_WC_SUCCESS;
  if (!is_good) note_bad(completion);
  if ((completion.wr_id & 1) == 0) return;  // only errors tell of the others
  if (lanes_.empty()) return;               // the link has ended
  Write& write = lanes_[completion.wr_id >> 1].pop_chain();
  if (end_started_ != 0) return;  // the engine fails them all, and may have let go of this one
  --write.outstanding;
  if (!is_good) write.state |= kFailed;
  finish_if_done(write);
}

void RdmaLink::finish_if_done(Write& write) noexcept {
  if (write.outstanding > 0 || (write.state & (kAllPosted | kFailed)) != kAllPosted) return;
  finished_.push_back(&write);
}

void RdmaLink::take_events() noexcept {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  while (channel_->take(&queue, &context)) ++events_;
  if (events_ < kAckBatch) return;
  verbs::lib().ack_cq_events(queue_->get(), std::exchange(events_, 0));
}

bool RdmaLink::arm(bool) noexcept {
  is_armed_ = true;
  if (is_broken() && end_started_ == 0) return false;
  if (!queue_->request_notice()) {
    fail(Errc::kTransfer, "ibv_req_notify_cq failed");
    return false;
  }
  // What came between the last poll and the request is not announced. At the end nobody collects
  // what has finished.
  return watch_side() && drain() == 0 && (end_started_ != 0 || finished_.empty());
}

// ---- breaking and ending -------------------------------------------------------------------

void RdmaLink::look_at_side() noexcept {
  std::uint64_t unused;  // notices do not travel this way
  while (side_->progress(&unused, 1) > 0) {
  }
  if (!side_->is_broken() || is_broken()) return;
  drain();  // the NIC may know a cause that explains more
  if (is_broken()) return;
  const Failure cause = side_->failure();
  fail(cause.code, cause.what);
}

void RdmaLink::note_bad(const ibv_wc& completion) noexcept {
  const bool is_flush = completion.status == IBV_WC_WR_FLUSH_ERR;
  if (is_broken() && (is_flush || !is_only_flushed_)) return;
  failure_.reset();
  is_only_flushed_ = is_flush;
  try {
    const verbs::Explained explained = verbs::explain(completion);
    fail(explained.code, explained.what);
  } catch (...) {
    fail(Errc::kTransfer, "a work completion failed");
  }
}

void RdmaLink::fail(Errc code, const std::string& what) noexcept {
  if (is_broken()) return;
  try {
    failure_ = Failure{code, what};
  } catch (...) {  // out of memory: the code alone
    failure_ = Failure{code, {}};
  }
}

void RdmaLink::break_off(Failure cause) noexcept {
  if (!is_broken()) failure_ = std::move(cause);
}

// The queue pairs go into error and complete what they hold, or are destroyed when a driver does
// not do so in time: after either, our NIC sends nothing. What it has sent may still be on its way,
// so the peer's word counts, that it has destroyed its own queue pairs; a peer that is gone can
// receive nothing either.
Quiesce RdmaLink::quiesce() noexcept {
  if (end_started_ == 0) {
    end_started_ = now();
    fail(Errc::kPeerLost, "the link was closed; connect again to go on");
    for (SendLane& lane : lanes_) lane.queue_pair().stop();
    [[maybe_unused]] const bool is_sent = side_->send_end();
  }
  drain();
  if (std::exchange(is_armed_, false)) take_events();
  std::uint64_t unused;
  while (side_->progress(&unused, 1) > 0) {
  }
  if (now() - end_started_ >= kEndWait) lanes_.clear();
  const bool is_drained = std::all_of(lanes_.begin(), lanes_.end(),
                                      [](const SendLane& lane) { return lane.is_idle(); });
  if (!is_drained || !(side_->is_ended() || side_->is_gone())) return Quiesce::kInProgress;
  lanes_.clear();
  return Quiesce::kQuiesced;
}

bool RdmaLink::watch_side() noexcept {
  if (side_->is_broken()) {  // a closed stream stays readable for ever
    if (std::exchange(side_events_, 0) != 0) {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, side_->fd(), nullptr);
    }
    return true;
  }
  const std::uint32_t wanted = EPOLLIN | (side_->has_unsent() ? unsigned{EPOLLOUT} : 0u);
  if (wanted == side_events_) return true;
  epoll_event event{};
  event.events = wanted;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, side_->fd(), &event) != 0) return false;
  side_events_ = wanted;
  return true;
}

std::string RdmaLink::path() const { return join("rdma from ", rail_->path().name, " to ", to_); }

std::string RdmaLink::describe() const {
  return join(path(), ", ", lanes_.size(), " queue pairs, up to ", most_sources_,
              " sources a write, flush ", flush_ ? "on" : "off", "; GID: ", rail_->gid().reason);
}

}  // namespace rdma_kv::transport::rdma
