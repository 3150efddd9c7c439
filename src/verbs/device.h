// NICs and their ports: found, described, opened.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "verbs/gid.h"
#include "verbs/handles.h"

namespace rdma_kv::verbs {

// One port as it is now.
struct PortInfo {
  std::string nic;
  int port = 0;
  std::string state;  // "PORT_ACTIVE", ...
  bool is_active = false;
  bool is_ethernet = false;  // RoCE; else InfiniBand
  std::uint32_t mtu_bytes = 0;
  std::uint64_t most_message_bytes = 0;
  std::uint16_t lid = 0;
  std::string netdev;
  double rate_gbps = 0;
  std::string pci;
  std::vector<GidEntry> gids;

  const char* link_layer() const noexcept { return is_ethernet ? "Ethernet" : "InfiniBand"; }
};

// An opened NIC with its one protection domain. Immutable: safe from any thread.
class Device {
 public:
  // Throws Error(kValue) naming the NICs that exist, Error(kUnavailable) when it cannot be opened.
  explicit Device(const std::string& nic);

  ibv_context* context() const noexcept { return context_.get(); }
  ibv_pd* pd() const noexcept { return pd_.get(); }
  const ibv_device_attr& limits() const noexcept { return limits_; }
  const std::string& nic() const noexcept { return nic_; }

  std::vector<PortInfo> ports() const;

 private:
  std::string nic_;
  UniqueContext context_;  // declared before what was made with it
  UniquePd pd_;
  ibv_device_attr limits_{};
};

// Names of all NICs, in the order of the library. Throws Error(kUnavailable).
std::vector<std::string> nic_names();

// Every port of every NIC that can be opened; the log tells of the others.
std::vector<PortInfo> all_ports();

// The port to use: `port` when it is not 0, else the first active one.
// Throws Error(kUnavailable) when there is no active port, Error(kValue) when `port` does not exist.
PortInfo choose_port(const Device& device, int port);

}  // namespace rdma_kv::verbs
