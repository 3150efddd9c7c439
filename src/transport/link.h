// The sending end of the seam between the engine and the kinds of path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "cuda/after.h"
#include "kv/plan.h"

namespace rdma_kv::transport {

// One transfer as a link sees it. Owned by the engine, at a fixed address from the first post()
// until its Completion came out of poll() or the link was quiesced.
struct Write {
  std::uint64_t id = 0;            // unique in one engine, never 0
  std::uint32_t tag = 0;           // 0: no notice
  const kv::Plan* plan = nullptr;  // unchanged while the write is under way
  kv::Cursor cursor;               // what is left to post; the link advances it
  void* owner = nullptr;           // the engine's
  bool is_abandoned = false;       // set by the link, see abandon()
  std::uint64_t outstanding = 0;   // for the link's own use: completions it still expects
  std::uint64_t state = 0;         // for the link's own use; 0 before the first call with it
};

// How far post() came. Never an error by itself: a link that broke says so in failure().
enum class Post {
  kPosted,     // all of it is under way; its Completion will come out of poll()
  kQueueFull,  // the path is full: poll(), or wait for fd(), then post() the same write again
  kAgain,      // a fair share was done: post() again at once, or serve others first
  kBroken,     // the link is broken; see failure()
};

// A write whose bytes are all visible at the peer, notice included, or (is_abandoned) of which
// nothing can land any more.
struct Completion {
  Write* write;
};

enum class Quiesce {
  kQuiesced,    // nothing posted on this link can land any more
  kInProgress,  // call again when fd() is readable, at the latest after 10 ms
};

// Why a link broke: the first cause, never the flush errors that follow it.
struct Failure {
  Errc code = Errc::kPeerLost;
  std::string
      what;  // the call, the reason in words, NIC, port, GID; the engine adds peer and blocks
};

struct LinkCounters {
  std::uint64_t posts = 0;          // doorbells, or system calls that moved bytes
  std::uint64_t work_requests = 0;  // work requests, or iovecs
  std::uint64_t completions = 0;    // work completions, or acknowledgements
};

// An open path to one peer. Not thread-safe: the engine's peer lock is held around every call.
// Nothing here blocks, throws (but failure()), allocates per block or reads a clock per block.
//
// Life: post and poll until failure or the end; then quiesce() until kQuiesced; then destroy.
// Destroying an unquiesced link ends it too, but promises nothing about the peer.
class Link {
 public:
  virtual ~Link() = default;

  // Whether order() can make a write wait on the GPU, with no thread waiting for it.
  virtual bool orders_on_gpu() const noexcept { return false; }
  // Before the first post(): the write reads its source when what `after` stands for now is over.
  // Throws Error(kValue, kTransfer); the write may then be dropped.
  virtual void order(Write&, cuda::After) {}
  // A write of so many blocks will be ordered or posted in a moment, once its ids are checked: what
  // needs no ids may begin. Nothing is written before post().
  virtual bool begins_early() const noexcept { return false; }
  virtual void expect(Write&, std::uint64_t /*blocks*/, kv::LayerRange) noexcept {}
  // A write that was expected or ordered will not be posted after all.
  virtual void forget(Write&) noexcept {}

  // Starts or resumes a write. Writes are posted one after the other: the engine does not start
  // another before the last one answered kPosted. Several posted writes may be under way.
  [[nodiscard]] virtual Post post(Write& write) noexcept = 0;

  // Runs of neighbouring blocks that one write may have.
  virtual std::size_t most_runs() const noexcept { return SIZE_MAX; }

  // Whether post() moves the bytes itself, on the calling thread, instead of handing them to a NIC
  // or a socket: then who asks for an asynchronous write must not be the one that posts it.
  virtual bool copies_in_post() const noexcept { return false; }

  // How long a caller that waits should look on, beyond the engine's own measure, before it sleeps:
  // for writes under way whose end is near.
  virtual Nanos patience() const noexcept { return 0; }

  // Collects finished writes, in any order, and takes note of a break. Returns how many.
  [[nodiscard]] virtual std::size_t poll(Completion* out, std::size_t most) noexcept = 0;

  // Stop this write: post no more of it, send no notice, and complete it (is_abandoned set) once
  // nothing of it can land any more. May be called for a write in any state after its first
  // post(), when it was only partly posted too; it must then not be posted again. It may still
  // complete as done, when it was too late to stop it. If the link cannot stop it alone, it may
  // break itself.
  virtual void abandon(Write& write) noexcept = 0;

  // Breaks the link from our side (shutdown, or a deadline that abandon() did not meet).
  virtual void break_off(Failure cause) noexcept = 0;

  virtual bool is_broken() const noexcept = 0;
  virtual Failure failure() const = 0;  // once is_broken()

  // After a break (or for an orderly end of a healthy link): makes sure that nothing can land.
  [[nodiscard]] virtual Quiesce quiesce() noexcept = 0;

  // Readable when poll(), a resumed post() or quiesce() may get further, or the peer's end went
  // away; only after arm(). An epoll descriptor that the link owns.
  virtual int fd() const noexcept = 0;
  // Asks for fd() to become readable on the next event. `wants_post`: a write waits after
  // kQueueFull, so room to post is an event too. Returns false when there is something to do now.
  [[nodiscard]] virtual bool arm(bool wants_post) noexcept = 0;

  virtual LinkCounters counters() const noexcept = 0;
  virtual const char* transport() const noexcept = 0;  // "tcp", "cma", ...
  // The same for messages, with what else names the path: NIC, port, GID.
  virtual std::string path() const { return transport(); }
  // One line for the log: how this path was set up (rails, GID, MTU, streams, queue pairs).
  virtual std::string describe() const = 0;
};

}  // namespace rdma_kv::transport
