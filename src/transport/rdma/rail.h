// One NIC port with this side's regions registered on it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "kv/layout.h"
#include "transport/rdma/async_events.h"
#include "transport/rdma/endpoint.h"
#include "transport/rdma/keys.h"
#include "transport/rdma/receive_hub.h"
#include "transport/rdma/registration.h"
#include "verbs/queue_pair.h"

namespace rdma_kv::transport::rdma {

struct RailOptions {
  std::string nic;      // "mlx5_0", or "mlx5_0:2" for its second port
  int gid_index = -1;   // -1: automatic
  int ib_timeout = 18;  // as KVCACHE_IB_TIMEOUT
  bool relaxed_ordering = false;
  bool remote_read = false;  // peers flush by reading
  bool remote_write = true;  // no: this side only sends
  std::uint64_t most_mr_bytes =
      0;              // cut regions at this size even if the NIC takes more; 0: do not
  std::string flush;  // whether peers flush by reading, and why; for describe()
};

// Made once per communicator and NIC, and shared by all of its links in both directions. Immutable
// but for the hub: safe from any thread. The layout's bytes and the reactor must outlive it.
class Rail {
 public:
  // Throws Error: kValue (unknown NIC, port or GID index), kUnavailable, kRegistration.
  Rail(Reactor& reactor, const kv::Layout& layout, const RailOptions& options);

  const std::shared_ptr<const verbs::Device>& device() const noexcept { return device_; }
  const verbs::PortInfo& port() const noexcept { return port_; }
  const verbs::GidChoice& gid() const noexcept { return gid_; }
  const verbs::LocalPath& path() const noexcept { return path_; }
  const RailOptions& options() const noexcept { return options_; }
  Reactor& reactor() const noexcept { return reactor_; }
  ReceiveHub& hub() const noexcept { return *hub_; }

  const std::vector<std::uint32_t>& rkeys() const noexcept { return rkeys_; }
  std::uint64_t registered_bytes() const noexcept;
  // How the NIC reaches regions on a GPU; empty: there are none. See Registration.
  const std::string& gpu_memory() const noexcept { return registration_.gpu_memory; }
  // Of our own regions, for sources.
  const KeyTable& local_keys() const noexcept { return *local_keys_; }
  // Where flushes read to: kFlushBytes that nobody looks at.
  ibv_sge scratch() const noexcept;

  // This rail's part of an endpoint, without queue pairs.
  Endpoint endpoint() const;
  // Where a queue pair of ours must go to meet queue pair `index` of `remote`.
  // Throws Error(kHandshake) when the two cannot be connected.
  verbs::RemotePath path_to(const Endpoint& remote, std::size_t index) const;

  std::string describe() const;

 private:
  void register_layout(const kv::Layout& layout);

  Reactor& reactor_;
  RailOptions options_;
  std::shared_ptr<const verbs::Device> device_;
  verbs::PortInfo port_;
  verbs::GidChoice gid_;
  verbs::LocalPath path_;
  Registration registration_;
  std::vector<std::uint32_t> rkeys_;
  std::optional<KeyTable> local_keys_;
  std::unique_ptr<std::uint64_t> scratch_bytes_;
  std::optional<verbs::MemoryRegion> scratch_;
  std::shared_ptr<ReceiveHub> hub_;
  std::unique_ptr<AsyncEvents> events_;
};

}  // namespace rdma_kv::transport::rdma
