#include "transport/loopback/end.h"

#include <map>
#include <utility>

#include "base/error.h"

namespace rdma_kv::transport::loopback {
namespace {

struct Published {
  Token token;
  std::weak_ptr<End> end;
};

std::mutex g_mutex;
// By epoch and link id. Guarded by g_mutex.
std::map<std::pair<std::uint64_t, std::uint64_t>, Published> g_ends;

class LoopbackInbound final : public stream::StreamInbound {
 public:
  explicit LoopbackInbound(std::shared_ptr<End> end) : end_(std::move(end)) {}
  ~LoopbackInbound() override { end_->end(); }

  bool attach(UniqueFd, std::uint16_t, std::uint16_t) noexcept override { return false; }
  void end(const std::string& why) noexcept override {
    if (is_ended()) return;
    why_ = why;
    end_->end();
    tell_end();
  }
  bool is_ended() const noexcept override {
    const std::lock_guard lock(end_->mutex);
    return end_->is_ended;
  }
  std::string why_ended() const override { return why_; }
  const char* transport() const noexcept override { return "loopback"; }

 private:
  const std::shared_ptr<End> end_;
  std::string why_ = "the peer ended it";
};

}  // namespace

void End::end() noexcept {
  const std::lock_guard lock(mutex);
  if (!std::exchange(is_ended, true)) ended.signal();
}

std::unique_ptr<stream::StreamInbound> make_inbound(std::shared_ptr<End> end) {
  return std::make_unique<LoopbackInbound>(std::move(end));
}

void publish(std::uint64_t epoch, const stream::Ticket& ticket, const std::shared_ptr<End>& end) {
  const std::lock_guard lock(g_mutex);
  std::erase_if(g_ends, [](const auto& entry) { return entry.second.end.expired(); });
  g_ends[{epoch, ticket.link_id}] = {ticket.token, end};
}

std::shared_ptr<End> find(const RemoteEnd& remote) {
  const std::lock_guard lock(g_mutex);
  const auto found = g_ends.find({remote.epoch, remote.link_id});
  std::shared_ptr<End> end;
  if (found != g_ends.end() && found->second.token == remote.token) {
    end = found->second.end.lock();
    g_ends.erase(found);
  }
  if (end) return end;
  throw Error(Errc::kUnavailable,
              join("loopback: ", remote.name,
                   " is not a decode engine of this process, or its "
                   "ticket was used or ended; loopback is for tests within one process"));
}

}  // namespace rdma_kv::transport::loopback
