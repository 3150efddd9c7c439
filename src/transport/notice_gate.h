// One link's way to decode's queue of notices.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/reactor.h"
#include "transport/inbound.h"

namespace rdma_kv::transport {

// Delivers a link's notices, and holds the link up while too many of its peer's wait to be taken: a
// peer that sends notices without end must not make this side's memory grow. Lives on the reactor's
// thread.
class NoticeGate {
 public:
  // `resume` runs on the reactor's thread when there is room again after is_open() said no; not
  // after the gate has died.
  NoticeGate(Reactor& reactor, NoticeSink& sink, const Origin& origin, std::function<void()> resume)
      : sink_(sink),
        origin_(origin),
        resume_(std::make_shared<std::function<void()>>([this, resume = std::move(resume)] {
          is_waiting_ = false;
          resume();
        })),
        go_on_([&reactor, weak = std::weak_ptr(resume_)] {
          reactor.post([weak] {
            if (const auto resume = weak.lock()) (*resume)();
          });
        }) {}
  ~NoticeGate() { sink_.stop_waiting(origin_, this); }
  NoticeGate(const NoticeGate&) = delete;
  NoticeGate& operator=(const NoticeGate&) = delete;

  void deliver(std::uint32_t tag) noexcept { may_be_full_ = !sink_.deliver(origin_, tag); }

  // No: take no further notice in, and read nothing that may hold one, until `resume`.
  bool is_open() noexcept {
    if (!may_be_full_) return true;
    if (!is_waiting_) is_waiting_ = may_be_full_ = sink_.wait_for_room(origin_, this, go_on_);
    return !is_waiting_;
  }

  // While it is not open: what had arrived before may still be delivered.
  bool has_reserve() noexcept { return sink_.has_reserve(origin_); }

 private:
  NoticeSink& sink_;
  const Origin& origin_;
  const std::shared_ptr<std::function<void()>> resume_;
  const std::function<void()> go_on_;
  bool may_be_full_ = true;  // an earlier link of the peer may have filled its share
  bool is_waiting_ = false;
};

}  // namespace rdma_kv::transport
