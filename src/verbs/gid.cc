#include "verbs/gid.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "verbs/sysfs.h"

namespace rdma_kv::verbs {
namespace {

bool is_link_local(const Gid& gid) noexcept { return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80; }

GidType type_from(const std::string& text, bool is_ethernet) {
  if (text.find("v2") != std::string::npos) return GidType::kRoceV2;
  // Kernels call RoCE v1 "IB/RoCE v1" on every link layer.
  return is_ethernet ? GidType::kRoceV1 : GidType::kInfiniBand;
}

// Higher is better.
int rank(const GidEntry& entry) noexcept {
  const int address = is_ipv4_mapped(entry.gid) ? 2 : is_link_local(entry.gid) ? 0 : 1;
  return (entry.type == GidType::kRoceV2 ? 10 : 0) + address;
}

std::string reason_for(const GidEntry& entry) {
  if (entry.type == GidType::kInfiniBand) return "the port's first InfiniBand address";
  const char* address = is_ipv4_mapped(entry.gid)  ? "the IPv4 address of the interface"
                        : is_link_local(entry.gid) ? "a link-local address"
                                                   : "an IPv6 address of the interface";
  if (rank(entry) == 12) return join("RoCE v2 with ", address, ", as wanted");
  return join("the port has no RoCE v2 entry with an IPv4 address; the best there is: ",
              name_of(entry.type), " with ", address);
}

std::string list_of(const std::vector<GidEntry>& gids) {
  std::string out;
  for (const GidEntry& entry : gids) {
    out += join(out.empty() ? "" : ", ", entry.index, " (", name_of(entry.type), ", ",
                text_of(entry.gid), ")");
  }
  return out;
}

}  // namespace

const char* name_of(GidType type) noexcept {
  switch (type) {
    case GidType::kInfiniBand: return "IB";
    case GidType::kRoceV1: return "RoCE v1";
    case GidType::kRoceV2: return "RoCE v2";
  }
  return "?";
}

std::string text_of(const Gid& gid) {
  char buffer[INET6_ADDRSTRLEN];
  return ::inet_ntop(AF_INET6, gid.data(), buffer, sizeof buffer) != nullptr ? buffer : "?";
}

bool is_ipv4_mapped(const Gid& gid) noexcept {
  constexpr std::array<std::uint8_t, 12> kPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::equal(kPrefix.begin(), kPrefix.end(), gid.begin());
}

std::vector<GidEntry> read_gids(ibv_context* context, const std::string& nic, int port,
                                int table_length, bool is_ethernet) {
  std::vector<GidEntry> out;
  for (int index = 0; index < table_length; ++index) {
    union ibv_gid raw;
    if (lib().query_gid(context, static_cast<std::uint8_t>(port), index, &raw) != 0) continue;
    GidEntry entry{index, {}, GidType::kInfiniBand, ""};
    std::memcpy(entry.gid.data(), raw.raw, entry.gid.size());
    if (entry.gid == Gid{}) continue;  // an unused place of the table
    const std::string folder = join("ports/", port, "/gid_attrs/");
    entry.type = type_from(sysfs::read(nic, join(folder, "types/", index)), is_ethernet);
    entry.netdev = sysfs::read(nic, join(folder, "ndevs/", index));
    out.push_back(std::move(entry));
  }
  return out;
}

GidChoice choose_gid(const std::vector<GidEntry>& gids, int wanted, const std::string& port_name) {
  if (gids.empty()) {
    throw Error(Errc::kUnavailable, join("no GID on ", port_name,
                                         "; has its interface an address and is it up?"));
  }
  if (wanted >= 0) {
    for (const GidEntry& entry : gids) {
      if (entry.index == wanted) return {entry, "the index that was asked for"};
    }
    throw Error(Errc::kValue, join("GID index ", wanted, " does not exist on ", port_name,
                                   "; it has ", list_of(gids)));
  }
  const auto best = std::max_element(
      gids.begin(), gids.end(), [](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return {*best, reason_for(*best)};
}

}  // namespace rdma_kv::verbs
