// One decode peer as prefill sees it: its link, and the transfers queued on it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/reactor.h"
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
// work is left and nobody drives, the reactor is armed: no transfer is ever orphaned.
//
// Safe from any thread. The only lock that a write takes, once per transfer.
class Peer : public std::enable_shared_from_this<Peer> {
 public:
  Peer(Reactor& reactor, std::shared_ptr<const kv::Mapping> mapping, std::string name,
       std::uint64_t epoch, std::unique_ptr<transport::Link> link);
  ~Peer();

  // Throws Error(kValue) for bad ids (nothing moved) and Error(kPeerLost) when the link is down.
  std::shared_ptr<Transfer> write(kv::BlockIds src, kv::BlockIds dst, kv::LayerRange layers,
                                  std::uint32_t tag, Nanos deadline);

  bool is_alive() const noexcept { return is_alive_.load(std::memory_order_acquire); }
  std::optional<Error> failure() const;  // why it is not alive
  // Breaks the link: what is under way fails with `cause` once nothing of it can land.
  void lose(Error cause) noexcept;
  // Waits for what is under way until `deadline`, fails the rest, quiesces and lets go of the link.
  void close(Nanos deadline) noexcept;

  const std::string& name() const noexcept { return name_; }
  std::uint64_t epoch() const noexcept { return epoch_; }
  std::string describe() const;
  const char* transport() const noexcept { return transport_; }
  PeerCounters counters() const;

 private:
  friend class Transfer;
  bool drive(Transfer& transfer, Nanos deadline) noexcept;
  void cancel(Transfer& transfer) noexcept;

  // All below need mutex_.
  void progress() noexcept;
  void post_queued() noexcept;
  void collect() noexcept;
  void check_deadlines(Nanos at) noexcept;
  void stop(Transfer& transfer, Error cause, Nanos at) noexcept;
  void end_link() noexcept;
  void fail_all() noexcept;
  void complete(Transfer& transfer, std::optional<Error> error) noexcept;
  bool has_work() const noexcept;
  void hand_over() noexcept;
  void on_reactor() noexcept;
  Nanos next_deadline() const noexcept;
  Error explain(const transport::Failure& failure, const Transfer& transfer) const;

  Reactor& reactor_;
  const std::shared_ptr<const kv::Mapping> mapping_;
  const std::string name_;
  const std::uint64_t epoch_;
  const char* const transport_;
  std::atomic<bool> is_alive_{true};

  mutable std::mutex mutex_;
  std::unique_ptr<transport::Link> link_;  // empty once quiesced
  std::deque<std::shared_ptr<Transfer>> queued_;   // the front may be partly posted
  std::vector<std::shared_ptr<Transfer>> moving_;  // posted whole, or stopping
  std::vector<std::unique_ptr<kv::Plan>> spare_plans_;
  bool is_driven_ = false;
  bool is_queue_full_ = false;
  bool is_ending_ = false;
  Nanos quiesce_deadline_ = kNever;
  std::optional<Error> failure_;
  PeerCounters counters_;
  std::uint64_t next_id_ = 1;
};

}  // namespace rdma_kv::engine
