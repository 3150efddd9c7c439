// Whether one process may write into another's memory, found out before a block depends on it.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>

#include "base/fd.h"
#include "transport/process/identity.h"

namespace rdma_kv::transport::cma {

using Nonce = std::array<std::uint8_t, 16>;

// What a decode process says of itself. The nonce lies in its memory at probe_address: who reads it
// there has found the right process and may touch its memory.
struct Offer {
  process::Identity process;
  std::uint64_t probe_address = 0;
  Nonce probe_nonce{};
};

// Of this process. Throws Error(kUnavailable).
Offer make_offer();

// Proves that this process may reach the offering one, and returns a descriptor that tells when it
// ends. Throws Error(kUnavailable) with the reason and, where there is one, the remedy.
UniqueFd check(const Offer& offer);

// "Operation not permitted (errno 1), ..." with what to do about it.
std::string explain(const char* call, int err, pid_t pid);

}  // namespace rdma_kv::transport::cma
