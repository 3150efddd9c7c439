#include "verbs/sysfs.h"

#include <filesystem>

#include "base/file.h"

namespace rdma_kv::verbs::sysfs {
namespace {

const std::filesystem::path kRoot = "/sys/class/infiniband";

}  // namespace

std::string read(const std::string& nic, const std::string& path) {
  return first_line_of((kRoot / nic / path).c_str()).value_or("");
}

std::string pci_address(const std::string& nic) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(kRoot / nic / "device", error);
  return error ? "" : target.filename().string();
}

}  // namespace rdma_kv::verbs::sysfs
