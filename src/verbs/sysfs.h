// What only the kernel's files tell about a NIC.
#pragma once

#include <string>

namespace rdma_kv::verbs::sysfs {

// First line of /sys/class/infiniband/<nic>/<path>; "" when it cannot be read.
std::string read(const std::string& nic, const std::string& path);

// PCI address of the NIC ("0000:17:00.0"); "" for one without (soft-RoCE).
std::string pci_address(const std::string& nic);

}  // namespace rdma_kv::verbs::sysfs
