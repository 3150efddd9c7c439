// Whether one process may write into another's memory, found out before a block depends on it.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>

#include "base/fd.h"

namespace rdma_kv::transport::cma {

using Nonce = std::array<std::uint8_t, 16>;

// What a decode process says of itself. The nonce lies in its memory at probe_address: who reads it
// there has found the right process and may touch its memory.
struct Offer {
  pid_t pid = 0;
  std::string boot_id;  // of the host's kernel: two hosts never share it
  std::uint64_t pid_namespace = 0;
  std::uint64_t probe_address = 0;
  Nonce probe_nonce{};
};

// Of this process. Throws Error(kUnavailable).
Offer make_offer();

// A descriptor that tells when a process of this pid namespace ends; invalid when there is none.
UniqueFd open_process(pid_t pid) noexcept;

// Proves that this process may reach the offering one, and returns a descriptor that tells when it
// ends. Throws Error(kUnavailable) with the reason and, where there is one, the remedy.
UniqueFd check(const Offer& offer);

// "Operation not permitted (errno 1), ..." with what to do about it.
std::string explain(const char* call, int err, pid_t pid);

}  // namespace rdma_kv::transport::cma
