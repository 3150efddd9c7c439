// The addresses of a port, and which of them to use.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "verbs/lib.h"

namespace rdma_kv::verbs {

using Gid = std::array<std::uint8_t, 16>;

enum class GidType { kInfiniBand, kRoceV1, kRoceV2 };
const char* name_of(GidType type) noexcept;  // "IB", "RoCE v1", "RoCE v2"

struct GidEntry {
  int index;
  Gid gid;
  GidType type;
  std::string netdev;  // "" where there is none
};

// As an IPv6 address; IPv4-mapped ones in dotted form.
std::string text_of(const Gid& gid);
bool is_ipv4_mapped(const Gid& gid) noexcept;

// The used entries of a port's table. `nic` names the folder of sysfs that tells their types.
std::vector<GidEntry> read_gids(ibv_context* context, const std::string& nic, int port,
                                int table_length, bool is_ethernet);

struct GidChoice {
  GidEntry entry;
  std::string reason;  // one sentence
};

// `wanted` is an index, or -1: a RoCE v2 address that is IPv4-mapped, else the best there is.
// Throws Error(kValue) naming the indexes that exist, Error(kUnavailable) when there is none.
GidChoice choose_gid(const std::vector<GidEntry>& gids, int wanted, const std::string& port_name);

}  // namespace rdma_kv::verbs
