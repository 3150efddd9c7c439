// What a user reads when a transfer fails: which write, to whom, why, and what to do.
#pragma once

#include <string>

#include "kv/plan.h"

namespace rdma_kv::engine {

// "32 blocks (local 4..901, remote 7..1020) of layers 0..3": ranges are inclusive.
std::string name_of(const kv::Plan& plan);

}  // namespace rdma_kv::engine
