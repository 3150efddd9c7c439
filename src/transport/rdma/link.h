// Prefill's end of an rdma link: posts writes and collects their completions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "transport/link.h"
#include "transport/rdma/chain.h"
#include "transport/rdma/rail.h"
#include "transport/rdma/send_lane.h"
#include "transport/stream/side_stream.h"

namespace rdma_kv::transport::rdma {

// What the connector made: queue pairs that are connected, their common completion queue, and the
// stream to the peer's data port.
struct LinkParts {
  std::shared_ptr<const Rail> rail;
  std::shared_ptr<verbs::CompletionChannel> channel;
  std::shared_ptr<verbs::CompletionQueue> queue;
  std::vector<SendLane> lanes;
  std::unique_ptr<stream::SideStream> side;
};

// Chains of a write go to whichever queue pair has room, in turn; after its last chain the notice
// goes out on all of them, so that it stands behind every part of the write.
//
// A write is under way until each of its chains has completed (Write::outstanding counts them), and
// Write::state holds the flags below.
class RdmaLink : public Link {
 public:
  RdmaLink(LinkParts parts, KeyTable remote_keys, const ChainLimits& limits, std::string to);
  ~RdmaLink() override;

  Post post(Write& write) noexcept override;
  std::size_t poll(Completion* out, std::size_t most) noexcept override;
  void abandon(Write& write) noexcept override;
  void break_off(Failure cause) noexcept override;
  bool is_broken() const noexcept override { return failure_.has_value(); }
  Failure failure() const override { return failure_.value_or(Failure{}); }
  Quiesce quiesce() noexcept override;
  int fd() const noexcept override { return epoll_.get(); }
  bool arm(bool wants_post) noexcept override;
  LinkCounters counters() const noexcept override { return counters_; }
  const char* transport() const noexcept override { return "rdma"; }
  std::string path() const override;
  std::string describe() const override;

 private:
  enum : std::uint64_t {
    kAllPosted = 1,    // nothing of it is left to post
    kNoticeBegun = 2,  // some queue pair may have its notice: it must go out on all
    kFailed = 4,       // a chain of it completed with an error
    kBegun = 8,
  };

  // All of them return kPosted when they got through.
  Post post_chain(Write& write) noexcept;
  Post post_notices(Write& write) noexcept;
  Post send(SendLane& lane, Write& write, ibv_send_wr* first) noexcept;
  Post resume() noexcept;
  SendLane* next_lane() noexcept;
  bool others_have_room(const SendLane& lane) const noexcept;

  std::size_t drain() noexcept;
  void complete(const ibv_wc& completion) noexcept;
  void finish_if_done(Write& write) noexcept;
  void take_events() noexcept;
  void look_at_side() noexcept;
  void note_bad(const ibv_wc& completion) noexcept;
  void fail(Errc code, const std::string& what) noexcept;
  bool watch_side() noexcept;

  std::shared_ptr<const Rail> rail_;
  std::shared_ptr<verbs::CompletionChannel> channel_;
  std::shared_ptr<verbs::CompletionQueue> queue_;
  std::vector<SendLane> lanes_;
  std::unique_ptr<stream::SideStream> side_;
  UniqueFd epoll_;
  Chain chain_;
  const std::string to_;
  const bool flush_;
  const std::uint32_t most_sources_;
  const std::uint32_t least_room_;  // slots that a chain must find free, see next_lane()

  Write* posting_ = nullptr;     // begun, and not all posted
  std::size_t turn_ = 0;         // the lane that is asked first
  ibv_send_wr* rest_ = nullptr;  // the part of chain_ that its queue pair did not take
  std::size_t rest_lane_ = 0;
  std::uint32_t noticed_ = 0;     // lanes that posting_ has announced itself on, a bit each
  std::vector<Write*> finished_;  // to be handed out by poll()
  std::optional<Failure> failure_;
  bool is_only_flushed_ = false;  // failure_ is a consequence; a better cause may replace it
  unsigned events_ = 0;           // taken from the channel and not acknowledged
  unsigned polls_ = 0;
  bool is_armed_ = false;
  std::uint32_t side_events_ = 0;  // what epoll_ waits for on the side stream
  Nanos end_started_ = 0;          // 0: quiesce() was not called yet
  LinkCounters counters_;
};

}  // namespace rdma_kv::transport::rdma
