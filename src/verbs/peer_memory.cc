#include "verbs/peer_memory.h"

#include <unistd.h>

namespace rdma_kv::verbs {

std::string peer_memory_module() {
  if (::access("/sys/module/nvidia_peermem", F_OK) == 0) return "nvidia_peermem";
  for (const char* trace :
       {"/sys/module/nv_peer_mem", "/sys/kernel/mm/memory_peers/nv_mem/version"}) {
    if (::access(trace, F_OK) == 0) return "nv_peer_mem";
  }
  return "";
}

}  // namespace rdma_kv::verbs
