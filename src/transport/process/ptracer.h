// Leave for one prefill process to reach this one's memory where Yama asks for it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

namespace rdma_kv::transport::process {

// With kernel.yama.ptrace_scope=1 a process may touch another's memory only when it is its ancestor
// or was named by it with prctl(PR_SET_PTRACER). Naming PR_SET_PTRACER_ANY would lift that
// protection for every process of this user, a compromised browser included, so it is never done:
// the one prefill process that the handshake named is let in, for as long as its link lives. It
// gains no more than ptrace_scope=0 grants everybody: the kernel still asks for the same user.
//
// The kernel remembers one name per process. A second prefill process at the same time is not let
// in, because that would shut the first one out in the middle of its writes; it gets EPERM when it
// opens, and falls back to the next transport.
//
// Null when there is nothing to grant: no Yama, another scope, no pid, or somebody else holds it.
class PtracerGrant;
std::shared_ptr<PtracerGrant> grant_ptrace(pid_t pid);

// "0", "1", "2", "3", or "not there".
std::string ptrace_scope_text();

}  // namespace rdma_kv::transport::process
