// A reliable connection between two NICs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "verbs/completion_queue.h"

namespace rdma_kv::verbs {

struct QueuePairSpec {
  std::uint32_t send_depth;
  std::uint32_t send_sges;
  std::uint32_t receive_depth;
};

// This side of the path: what every queue pair of a rail shares.
struct LocalPath {
  int port;
  int gid_index;
  bool is_ethernet;
  std::string name;  // NIC, port and GID, for messages
};

// What the peer tells of its queue pair.
struct RemotePath {
  Gid gid;
  std::uint16_t lid;
  std::uint32_t mtu_bytes;  // the smaller one of both sides
  std::uint32_t number;
  std::uint32_t psn;
};

struct QueuePairAccess {
  bool remote_write = false;
  bool remote_read = false;
};

// Reads that one queue pair may have under way: ours to the peer, and the peer's to us. Both sides
// must hold to it, and it is not negotiated; every NIC that we know of can do 16.
inline constexpr int kReadsUnderWay = 16;

// Created with a random packet sequence number and ready to be connected. Not thread-safe.
class QueuePair {
 public:
  // `spec` is clamped to the NIC's limits; spec() tells what it became. Throws Error(kUnavailable).
  QueuePair(std::shared_ptr<const Device> device, std::shared_ptr<const CompletionQueue> queue,
            QueuePairSpec spec, const LocalPath& path, QueuePairAccess access);

  // To RTR and RTS. `timeout` as in KVCACHE_IB_TIMEOUT. Throws Error(kHandshake).
  void connect(const LocalPath& path, const RemotePath& remote, int timeout);
  // Stops it: what is posted completes with an error, nothing new starts. False when refused.
  bool stop() noexcept;

  std::uint32_t number() const noexcept { return queue_pair_->qp_num; }
  std::uint32_t psn() const noexcept { return psn_; }
  const QueuePairSpec& spec() const noexcept { return spec_; }
  ibv_qp* get() const noexcept { return queue_pair_.get(); }

 private:
  std::shared_ptr<const Device> device_;
  std::shared_ptr<const CompletionQueue> queue_;
  QueuePairSpec spec_;
  UniqueQp queue_pair_;
  std::uint32_t psn_;
};

// `wanted` within the limits of the NIC.
QueuePairSpec clamp(QueuePairSpec wanted, const ibv_device_attr& limits) noexcept;

}  // namespace rdma_kv::verbs
