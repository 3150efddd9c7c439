// The receiving end of the seam: what a peer's link may do to this side.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "transport/remote_end.h"

namespace rdma_kv::transport {

// Who writes to us over one link.
struct Origin {
  std::string name;         // for messages and notices; up to a space: the address of its host
  std::uint64_t epoch = 0;  // of the peer
};

// Takes notices in. Called on the reactor's thread; must not block.
class NoticeSink {
 public:
  virtual ~NoticeSink() = default;
  // False when no more notices of this peer should come: see wait_for_room().
  virtual bool deliver(const Origin& origin, std::uint32_t tag) noexcept = 0;
  // False: there is room for this peer's notices. True: too many of them wait to be taken, and
  // `go_on` is called once some were, once, on any thread, unless `who` stops waiting first.
  virtual bool wait_for_room(const Origin& origin, const void* who,
                             const std::function<void()>& go_on) noexcept = 0;
  virtual void stop_waiting(const Origin& origin, const void* who) noexcept = 0;
  // Whether those that had arrived before the peer was held up may still be delivered.
  virtual bool has_reserve(const Origin& origin) noexcept = 0;
};

// One link that a peer opened, or may still open, into this side. Lives on the reactor's thread.
class Inbound {
 public:
  virtual ~Inbound() = default;

  // Ends the link: takes nothing more of it, and drops its path. Where the peer's own calls move
  // the bytes (cma) it may go on for a moment: is_quiesced() tells. Never waits.
  virtual void end(const std::string& why) noexcept = 0;
  virtual bool is_ended() const noexcept = 0;
  // Once ended: nothing of it can land here any more.
  virtual bool is_quiesced() const noexcept { return is_ended(); }
  virtual std::string why_ended() const = 0;
  // Delivers the notices that have arrived without this side having looked.
  virtual void settle() noexcept {}
  virtual const char* transport() const noexcept = 0;
};

}  // namespace rdma_kv::transport
