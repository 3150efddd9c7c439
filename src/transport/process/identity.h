// Which process of which host: what two processes have to know before one touches the other's
// memory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.h"

namespace rdma_kv::transport::process {

struct Identity {
  pid_t pid = 0;
  std::string boot_id;  // of the host's kernel: two hosts never share it
  std::uint64_t pid_namespace = 0;
};

// Of this process. Throws Error(kUnavailable); `transport` begins its text.
Identity identity(const char* transport);

// A descriptor that tells when a process of this pid namespace ends; invalid when there is none.
UniqueFd open_process(pid_t pid) noexcept;

// Finds the process of an identity that a peer claims to have. Throws Error(kUnavailable) when it
// is of another host or pid namespace, or is not there.
UniqueFd find_process(const Identity& claimed, const char* transport);

// "Operation not permitted (errno 1), of process 7; ..." with what to do about it. `permission`
// says which right is missing where that is the reason.
std::string explain(const char* call, int err, pid_t pid, const char* permission);

// A duplicate of descriptor `number` of another process. Throws Error(kUnavailable).
UniqueFd take_descriptor(const UniqueFd& process, pid_t pid, int number, const char* transport);

}  // namespace rdma_kv::transport::process
