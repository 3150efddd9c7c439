#include "transport/rdma/inbound.h"

#include <arpa/inet.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "verbs/status.h"

namespace rdma_kv::transport::rdma {
namespace {

constexpr std::uint32_t kReceiveChain = 32;

// Receives without memory: a WRITE_WITH_IMM only needs one to take its immediate. All are equal, so
// one linked run of them serves everybody; the library reads it and keeps nothing.
std::array<ibv_recv_wr, kReceiveChain>& receive_chain(std::uint32_t count) noexcept {
  thread_local std::array<ibv_recv_wr, kReceiveChain> chain{};
  for (std::uint32_t i = 0; i < count; ++i) chain[i].next = i + 1 < count ? &chain[i + 1] : nullptr;
  return chain;
}

// Checks what the peer sent before the hub learns of a receiver that cannot be made.
void check_endpoint(const Endpoint& remote) {
  const std::size_t count = remote.queue_pairs.size();
  if (count > 0 && count <= kMostQueuePairs) return;
  throw Error(Errc::kHandshake, join("the peer offers ", count, " queue pairs; allowed are 1..",
                                     kMostQueuePairs, " (KVCACHE_QPS_PER_PEER)"));
}

}  // namespace

RdmaInbound::RdmaInbound(std::shared_ptr<const Rail> rail, NoticeSink& sink, const Origin& origin,
                         const Endpoint& remote)
    : rail_(std::move(rail)),
      origin_(origin),
      gate_(rail_->reactor(), sink, origin_, [this] { rail_->hub().serve(hub_context_); }),
      hub_context_(nullptr),
      counter_(remote.queue_pairs.size()) {
  check_endpoint(remote);
  const verbs::Device& device = *rail_->device();
  const verbs::QueuePairSpec spec = verbs::clamp({1, 1, kReceiveDepth}, device.limits());
  const auto count = static_cast<std::uint32_t>(remote.queue_pairs.size());
  hub_context_ = rail_->hub().add(*this);
  try {
    queue_ = std::make_shared<verbs::CompletionQueue>(
        rail_->hub().channel(), device, static_cast<int>(count * (spec.receive_depth + 1)),
        hub_context_);
    lanes_.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      lanes_.push_back(
          {verbs::QueuePair(rail_->device(), queue_, spec, rail_->path(),
                            {.remote_write = true, .remote_read = rail_->options().remote_read})});
      post_receives(i, spec.receive_depth);
      if (lanes_[i].is_dead) {
        throw Error(Errc::kHandshake, join("ibv_post_recv failed on ", rail_->path().name));
      }
      lanes_[i].queue_pair.connect(rail_->path(), rail_->path_to(remote, i),
                                   rail_->options().ib_timeout);
    }
    side_ =
        stream::make_side_inbound(rail_->reactor(), sink, origin, "rdma", [this] { drop_path(); });
    // Last: from here on the reactor may call.
    if (!queue_->request_notice()) {
      throw Error(Errc::kHandshake, join("ibv_req_notify_cq failed on ", rail_->path().name));
    }
  } catch (...) {
    rail_->hub().remove(hub_context_);
    throw;
  }
}

RdmaInbound::~RdmaInbound() {
  side_.reset();  // may end the path
  drop_path();
}

Endpoint RdmaInbound::endpoint() const {
  Endpoint endpoint = rail_->endpoint();
  for (const Lane& lane : lanes_) {
    endpoint.queue_pairs.push_back({lane.queue_pair.number(), lane.queue_pair.psn()});
  }
  return endpoint;
}

bool RdmaInbound::attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept {
  return side_->attach(std::move(stream), index, count);
}

void RdmaInbound::end(const std::string& why) noexcept { side_->end(why); }

bool RdmaInbound::is_ended() const noexcept { return side_->is_ended(); }

bool RdmaInbound::serve() noexcept {
  if (!queue_) return false;
  // Asked for before polling: what comes after the last poll is announced.
  if (!queue_->request_notice()) return false;
  std::array<ibv_wc, kPollBatch> completions;
  for (int taken = 0; taken < kNoticesPerTurn;) {
    // Held up: the receives that are posted fill up, and then the sender waits in its own NIC.
    if (!gate_.is_open()) return false;
    replace_receives();  // also those that settle() took
    const int got = queue_->poll(completions.data(), kPollBatch);
    if (got < 0) {
      end(join("the completion queue of ", rail_->path().name, " failed"));
      return false;
    }
    if (got == 0) return false;
    for (int i = 0; i < got; ++i) {
      if (take(completions[static_cast<std::size_t>(i)])) continue;
      end(join("it announced tags that its queue pairs do not agree on"));
      return false;
    }
    taken += got;
  }
  return true;
}

// False: the peer breaks the protocol.
bool RdmaInbound::take(const ibv_wc& completion) {
  const auto lane = std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& l) {
    return l.queue_pair.number() == completion.qp_num;
  });
  if (lane == lanes_.end()) return true;
  --lane->receives;
  if (completion.status != IBV_WC_SUCCESS) {
    if (!std::exchange(lane->is_dead, true) && completion.status != IBV_WC_WR_FLUSH_ERR) {
      log(LogLevel::kWarning, join("rdma link from ", origin_.name, " on ", rail_->path().name,
                                   ": ", verbs::explain(completion).what));
    }
    // The stream ends the link: the peer's own completions tell it why better than we could.
    return true;
  }
  ++lane->to_post;
  const std::uint32_t tag = ntohl(completion.imm_data);
  if (completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM || tag == 0) return false;
  switch (counter_.see(tag, static_cast<std::size_t>(lane - lanes_.begin()))) {
    case NoticeCounter::Seen::kWait:
      return true;
    case NoticeCounter::Seen::kDeliver:
      gate_.deliver(tag);
      return true;
    case NoticeCounter::Seen::kTooMany:
      return false;
  }
  return false;
}

void RdmaInbound::replace_receives() noexcept {
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    post_receives(i, std::exchange(lanes_[i].to_post, 0));
  }
}

void RdmaInbound::post_receives(std::size_t index, std::uint32_t count) noexcept {
  Lane& lane = lanes_[index];
  while (count > 0 && !lane.is_dead) {
    const std::uint32_t run = std::min(count, kReceiveChain);
    ibv_recv_wr* bad = nullptr;
    if (ibv_post_recv(lane.queue_pair.get(), receive_chain(run).data(), &bad) != 0) {
      lane.is_dead = true;  // the sender will wait for receives until its deadline
      log(LogLevel::kWarning,
          join("ibv_post_recv failed on ", rail_->path().name, " for ", origin_.name));
      return;
    }
    lane.receives += run;
    count -= run;
  }
}

// Also what a closed gate keeps waiting: it is at most what the receives that are posted hold, and
// they are not posted again before it opens.
void RdmaInbound::settle() noexcept {
  if (!queue_) return;
  std::uint32_t arrived = 0;  // at most
  for (const Lane& lane : lanes_) arrived += lane.receives;
  std::array<ibv_wc, kPollBatch> completions;
  while (arrived > 0 && (gate_.is_open() || gate_.has_reserve())) {
    const int got = queue_->poll(completions.data(), kPollBatch);
    if (got <= 0) break;
    for (int i = 0; i < got; ++i) {
      if (take(completions[static_cast<std::size_t>(i)])) continue;
      return end(join("it announced tags that its queue pairs do not agree on"));
    }
    arrived -= std::min(arrived, static_cast<std::uint32_t>(got));
  }
  if (gate_.is_open()) replace_receives();
}

void RdmaInbound::drop_path() noexcept {
  if (!queue_) return;
  for (Lane& lane : lanes_) lane.queue_pair.stop();
  take_last_notices();
  rail_->hub().remove(hub_context_);
  lanes_.clear();
  queue_.reset();
}

// A peer that ends its link in order has seen its last writes complete, but their immediates may
// still wait here: they must not get lost. Stopped queue pairs complete every receive behind them;
// some drivers (soft-RoCE before Linux 6.4) do not, hence the time limit.
void RdmaInbound::take_last_notices() noexcept {
  std::array<ibv_wc, kPollBatch> completions;
  Nanos give_up = now() + kLastNoticesWait;
  if (!gate_.has_reserve()) {
    log(LogLevel::kError, join("the last notices of ", origin_.name, " over rdma are lost: too ",
                               "many of its earlier ones wait and nobody takes them"));
    return;
  }
  while (std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.receives > 0; })) {
    const int got = queue_->poll(completions.data(), kPollBatch);
    if (got < 0) return;
    for (int i = 0; i < got; ++i) {
      if (!take(completions[static_cast<std::size_t>(i)])) return;
    }
    if (got > 0) {
      give_up = now() + kLastNoticesWait;
    } else if (now() >= give_up) {
      return;
    } else {
      ::sched_yield();
    }
  }
}

}  // namespace rdma_kv::transport::rdma
