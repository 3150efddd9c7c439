#include "engine/explain.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"

namespace rdma_kv::engine {

std::string name_of(const kv::Plan& plan) {
  if (plan.empty()) return "an empty write";
  std::uint64_t src_low = UINT64_MAX, src_high = 0, dst_low = UINT64_MAX, dst_high = 0;
  for (const kv::Run& run : plan.runs()) {
    src_low = std::min<std::uint64_t>(src_low, run.src_block);
    src_high = std::max<std::uint64_t>(src_high, std::uint64_t{run.src_block} + run.count - 1);
    dst_low = std::min<std::uint64_t>(dst_low, run.dst_block);
    dst_high = std::max<std::uint64_t>(dst_high, std::uint64_t{run.dst_block} + run.count - 1);
  }
  const auto layers = plan.layers();
  return join(plan.blocks(), plan.blocks() == 1 ? " block" : " blocks", " (local ", src_low, "..",
              src_high, ", remote ", dst_low, "..", dst_high, ") of layers ", layers.first, "..",
              layers.first + layers.count - 1);
}

}  // namespace rdma_kv::engine
