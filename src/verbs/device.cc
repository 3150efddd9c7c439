#include "verbs/device.h"

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "verbs/sysfs.h"

namespace rdma_kv::verbs {
namespace {

// The library's list of devices, for as long as this lives.
class DeviceList {
 public:
  DeviceList() : devices_(lib().get_device_list(&count_)) {
    if (devices_ != nullptr) return;
    const int err = errno;
    if (err == ENOSYS) {
      throw Error(Errc::kUnavailable,
                  "this kernel has no RDMA support; load ib_uverbs (modprobe ib_uverbs)");
    }
    throw Error(Errc::kUnavailable, join("ibv_get_device_list: ", reason(err)));
  }
  ~DeviceList() { lib().free_device_list(devices_); }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;

  ibv_device** begin() const noexcept { return devices_; }
  ibv_device** end() const noexcept { return devices_ + count_; }

 private:
  int count_ = 0;
  ibv_device** devices_;
};

ibv_device* find(const DeviceList& list, const std::string& nic) {
  std::string known;
  for (ibv_device* device : list) {
    const std::string name = lib().get_device_name(device);
    if (name == nic) return device;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw Error(Errc::kValue, join("NIC '", nic, "' does not exist; this machine has ",
                                 known.empty() ? "none" : known));
}

PortInfo describe(const Device& device, int port) {
  ibv_port_attr attr;
  if (const int rc = lib().query_port(device.context(), static_cast<std::uint8_t>(port), &attr)) {
    throw Error(Errc::kUnavailable,
                join("ibv_query_port: ", reason(rc), ", ", device.nic(), " port ", port));
  }
  PortInfo info;
  info.nic = device.nic();
  info.port = port;
  info.state = lib().port_state_str(attr.state);
  info.is_active = attr.state == IBV_PORT_ACTIVE;
  info.is_ethernet = attr.link_layer == IBV_LINK_LAYER_ETHERNET;
  info.mtu_bytes = 128u << attr.active_mtu;
  info.most_message_bytes = attr.max_msg_sz;
  info.lid = attr.lid;
  info.rate_gbps = std::strtod(sysfs::read(info.nic, join("ports/", port, "/rate")).c_str(), nullptr);
  info.pci = sysfs::pci_address(info.nic);
  info.gids = read_gids(device.context(), info.nic, port, attr.gid_tbl_len, info.is_ethernet);
  for (const GidEntry& entry : info.gids) {
    if (info.netdev.empty()) info.netdev = entry.netdev;
  }
  return info;
}

}  // namespace

Device::Device(const std::string& nic) : nic_(nic) {
  const DeviceList list;
  context_.reset(lib().open_device(find(list, nic)));
  if (!context_) {
    const int err = errno;
    throw Error(Errc::kUnavailable, join("ibv_open_device: ", reason(err), ", ", nic,
                                         "; may this process use /dev/infiniband/uverbs*?"));
  }
  if (const int rc = lib().query_device(context_.get(), &limits_)) {
    throw Error(Errc::kUnavailable, join("ibv_query_device: ", reason(rc), ", ", nic));
  }
  pd_.reset(lib().alloc_pd(context_.get()));
  if (!pd_) {
    const int err = errno;
    throw Error(Errc::kUnavailable, join("ibv_alloc_pd: ", reason(err), ", ", nic));
  }
}

std::vector<PortInfo> Device::ports() const {
  std::vector<PortInfo> out;
  for (int port = 1; port <= limits_.phys_port_cnt; ++port) out.push_back(describe(*this, port));
  return out;
}

std::vector<std::string> nic_names() {
  std::vector<std::string> out;
  for (ibv_device* device : DeviceList()) out.emplace_back(lib().get_device_name(device));
  return out;
}

std::vector<PortInfo> all_ports() {
  std::vector<PortInfo> out;
  for (const std::string& nic : nic_names()) {
    try {
      for (PortInfo& port : Device(nic).ports()) out.push_back(std::move(port));
    } catch (const Error& error) {
      log(LogLevel::kWarning, join("NIC ", nic, " is left out: ", error.what()));
    }
  }
  return out;
}

PortInfo choose_port(const Device& device, int port) {
  std::string states;
  for (PortInfo& info : device.ports()) {
    if (port != 0 ? info.port == port : info.is_active) {
      if (info.is_active) return std::move(info);
    }
    states += join(states.empty() ? "" : ", ", info.port, " ", info.state);
  }
  if (port > device.limits().phys_port_cnt || port < 0) {
    throw Error(Errc::kValue,
                join("NIC ", device.nic(), " has no port ", port, "; it has ", states));
  }
  throw Error(Errc::kUnavailable,
              join("no active port on ", device.nic(), " (", states,
                   "); is the cable in and the interface up (rdma link show)?"));
}

}  // namespace rdma_kv::verbs
