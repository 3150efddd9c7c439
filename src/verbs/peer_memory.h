// Kernel modules that let ibv_reg_mr pin the memory of a GPU by its address.
#pragma once

#include <string>

namespace rdma_kv::verbs {

// "nvidia_peermem" (NVIDIA's driver) or "nv_peer_mem" (the older, separate one); empty: neither is
// loaded, or this container does not see it.
std::string peer_memory_module();

}  // namespace rdma_kv::verbs
