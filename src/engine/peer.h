// One decode peer as prefill sees it: its link, and the transfers queued on it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/owner.h"
#include "base/reactor.h"
#include "engine/revoked_tags.h"
#include "engine/transfer.h"
#include "kv/mapping.h"
#include "transport/link.h"

namespace rdma_kv::engine {

struct PeerCounters {
  std::uint64_t transfers_done = 0;
  std::uint64_t transfers_failed = 0;
  std::uint64_t blocks_written = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t runs_written = 0;  // neighbouring blocks joined
  std::uint64_t queued = 0;        // now
  transport::LinkCounters link;
};

// Whoever waits for a transfer drives the link on its own thread; when nobody waits, or waiting
// gets long, the reactor's thread does. Exactly one of them at a time (is_driven_), and whenever
// work is left and nobody drives, the reactor is told: no transfer is ever orphaned.
//
// Safe from any thread. Its lock is the only one that a write takes, once per transfer.
// What a write that could not be quiesced may still do: its bytes may land in these blocks.
struct UnquiescedWrite {
  std::uint32_t tag;
  kv::LayerRange layers;
  std::vector<kv::Run> runs;
};

class Peer : public std::enable_shared_from_this<Peer> {
 public:
  static std::shared_ptr<Peer> make(Reactor& reactor, std::shared_ptr<const kv::Mapping> mapping,
                                    std::string name, std::uint64_t epoch,
                                    std::unique_ptr<transport::Link> link);
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  enum class Then {
    kReturn,  // the reactor moves what is left
    kWait,    // the caller waits for it at once, and drives
  };
  // `after`: what the copy waits for, on the GPU; only where orders_on_gpu().
  // Throws Error(kValue) for bad ids (nothing moved) and Error(kPeerLost) when the link is down.
  std::shared_ptr<Transfer> write(kv::BlockIds src, kv::BlockIds dst, kv::LayerRange layers,
                                  Label label, Nanos deadline, Then then = Then::kReturn,
                                  cuda::After after = {});
  bool orders_on_gpu() const noexcept { return orders_on_gpu_; }

  bool is_alive() const noexcept { return is_alive_.load(std::memory_order_acquire); }
  std::optional<Error> failure() const;  // why it is not alive
  // Breaks the link: what is under way fails with `why` once nothing of it can land.
  void lose(const std::string& why) noexcept;
  // Waits for what is under way until `deadline`, fails the rest, quiesces and lets go of the link;
  // but a link that cannot be quiesced stays, to be watched until it is.
  void close(Nanos deadline) noexcept;
  // Stops every write with this tag, and refuses later ones, until allow(). Returns those that have
  // not ended yet; as soon as they have, nothing with this tag is under way.
  std::vector<std::shared_ptr<Transfer>> revoke(std::uint32_t tag);
  void allow(std::uint32_t tag) noexcept;

  // Writes that failed with kNotQuiesced. Empty again once the peer has confirmed the link's end.
  std::vector<UnquiescedWrite> unquiesced() const;
  // The peer has said in another way (a new handshake) that it has ended this link: what waits for
  // that fails now.
  void confirm_quiesced() noexcept;

  // The same for many, at the same time: one that does not answer costs the others nothing.
  static void close_all(std::span<Peer* const> peers, Nanos deadline) noexcept;
  // Begins the end of an idle link, in order, and returns at once; does nothing while writes move.
  void end_soon(const char* why) noexcept;
  bool is_gone() const noexcept;  // nothing is left to end
  // Looks at deadlines and at the link's health; the engine calls it a few times a second.
  void tick() noexcept;

  const std::string& name() const noexcept { return name_; }
  std::uint64_t epoch() const noexcept { return epoch_; }
  const char* transport() const noexcept { return transport_; }
  const std::string& describe() const noexcept { return description_; }
  PeerCounters counters() const;

 private:
  class HeadStart;
  friend class Transfer;
  friend class DeleteInOwner<Peer>;

  Peer(Reactor& reactor, std::shared_ptr<const kv::Mapping> mapping, std::string name,
       std::uint64_t epoch, std::unique_ptr<transport::Link> link);
  ~Peer();
  bool drive(Transfer& transfer, Nanos deadline) noexcept;
  void cancel(Transfer& transfer) noexcept;
  TransferStats stats_of(const Transfer& transfer) const noexcept;
  std::unique_ptr<kv::Plan> take_plan();

  // For callers, as opposed to who drives: announces the wait, so that the driver gives way.
  std::unique_lock<std::mutex> enter() const noexcept;
  void give_way() const noexcept;  // without the lock

  // All below need mutex_.
  bool progress() noexcept;  // true: something moved
  bool post_queued() noexcept;
  bool collect() noexcept;
  void check_deadlines(Nanos at) noexcept;
  void stop(std::shared_ptr<Transfer> transfer, Error cause, Nanos at) noexcept;
  bool continue_close(Nanos deadline) noexcept;  // true: there is nothing to wait for
  void begin_end(const transport::Failure& cause) noexcept;
  void continue_end() noexcept;
  void give_up_quiescing() noexcept;
  void let_go_of_link() noexcept;
  void fail_all(Errc code, const std::string& why) noexcept;
  void complete(Transfer& transfer, std::optional<Error> error) noexcept;
  void start_moving(std::shared_ptr<Transfer> transfer) noexcept;
  std::string revoked(const Transfer& transfer) const;
  bool has_work() const noexcept { return !queued_.empty() || !moving_.empty() || is_ending_; }
  void hand_over() noexcept;
  void call_soon() noexcept;
  void on_reactor() noexcept;
  Nanos next_deadline() const noexcept;

  Reactor& reactor_;
  const std::shared_ptr<const kv::Mapping> mapping_;
  const std::string name_;
  const std::uint64_t epoch_;
  const char* const transport_;
  const std::string path_;  // for messages
  const std::size_t most_runs_;
  const bool orders_on_gpu_;
  const bool begins_early_;
  const std::string description_;
  std::atomic<bool> is_alive_{true};

  mutable std::mutex mutex_;
  mutable std::atomic<int> entering_{0};           // callers that wait for mutex_
  std::unique_ptr<transport::Link> link_;          // empty once quiesced
  std::deque<std::shared_ptr<Transfer>> queued_;   // the front may be partly posted
  std::vector<std::shared_ptr<Transfer>> moving_;  // posted whole, or stopping
  std::vector<std::unique_ptr<kv::Plan>> spare_plans_;
  std::atomic<bool> is_driven_{false};  // a waiting thread drives; written under mutex_
  std::atomic<bool> is_called_{false};  // the reactor was asked to look soon
  bool is_queue_full_ = false;          // the last post found no room
  bool is_again_ = false;               // the last post wants to go on at once
  bool is_ending_ = false;              // the link is being quiesced
  Nanos next_deadline_ = kNever;
  Nanos quiesce_deadline_ = kNever;
  std::vector<UnquiescedWrite> unquiesced_;  // not empty: the link lingers, is_ending_ stays
  RevokedTags revoked_;
  std::optional<Error> failure_;
  PeerCounters counters_;
  std::uint64_t next_id_ = 1;
};

}  // namespace rdma_kv::engine
