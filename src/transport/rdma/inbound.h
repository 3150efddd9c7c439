// The receiving end of an rdma link: queue pairs that a peer writes through.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/inbound.h"
#include "transport/notice_gate.h"
#include "transport/rdma/endpoint.h"
#include "transport/rdma/notice_counter.h"
#include "transport/rdma/rail.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::transport::rdma {

// The bytes land without us. We see the immediates, and end the link when its stream says so or
// closes: then the queue pairs are destroyed, and nothing of the peer can land any more.
// Lives on the reactor's thread, but for its construction.
class RdmaInbound : public stream::StreamInbound, private Receiver {
 public:
  // Makes as many queue pairs as `remote` has and connects them. Throws Error.
  RdmaInbound(std::shared_ptr<const Rail> rail, NoticeSink& sink, const Origin& origin,
              const Endpoint& remote);
  ~RdmaInbound() override;

  Endpoint endpoint() const;  // for the peer

  bool attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept override;
  void end(const std::string& why) noexcept override;
  void settle() noexcept override;
  bool is_ended() const noexcept override;
  std::string why_ended() const override { return side_->why_ended(); }
  void set_on_end(std::function<void()> on_end) override { side_->set_on_end(std::move(on_end)); }
  const char* transport() const noexcept override { return "rdma"; }

 private:
  bool serve() noexcept override;
  bool take(const ibv_wc& completion);
  void replace_receives() noexcept;
  void post_receives(std::size_t lane, std::uint32_t count) noexcept;
  void drop_path() noexcept;
  void take_last_notices() noexcept;

  struct Lane {
    verbs::QueuePair queue_pair;
    std::uint32_t receives = 0;  // posted and not completed
    std::uint32_t to_post = 0;
    bool is_dead = false;  // failed: no receive is posted any more
  };

  std::shared_ptr<const Rail> rail_;
  const Origin origin_;
  NoticeGate gate_;
  void* hub_context_;
  std::shared_ptr<verbs::CompletionQueue> queue_;
  std::vector<Lane> lanes_;  // empty once the path is dropped
  NoticeCounter counter_;
  std::unique_ptr<stream::StreamInbound> side_;
};

}  // namespace rdma_kv::transport::rdma
