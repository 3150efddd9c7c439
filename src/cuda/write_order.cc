#include "cuda/write_order.h"

#include <algorithm>

#include "cuda/current_device.h"
#include "cuda/driver.h"
#include "cuda/gpu_direct.h"

namespace rdma_kv::cuda {
namespace {

constexpr const char* kSetting = "KVCACHE_GDRCOPY_FLUSH_ENABLE";

struct Answers {
  std::string ordered;    // devices whose kernels see writes in order
  std::string unordered;  // those that need a flush, or do not tell
};

void add(std::string& list, const std::string& item) {
  if (!list.empty()) list += ", ";
  list += item;
}

Answers ask_all(std::vector<int> devices) {
  std::sort(devices.begin(), devices.end());
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  Answers answers;
  for (const int device : devices) {
    try {
      const GpuDirect gpu = ask(device);
      if (!gpu.ordering) {
        add(answers.unordered, join(gpu.name, " (does not tell)"));
      } else {
        add(*gpu.ordering >= kOrderingOwner ? answers.ordered : answers.unordered,
            join(gpu.name, " (reports ", *gpu.ordering, ")"));
      }
    } catch (const Error& error) {
      add(answers.unordered, join(name_of(device), " (", error.what(), ")"));
    }
  }
  return answers;
}

}  // namespace

FlushPlan flush_plan(const std::vector<int>& devices, std::optional<bool> forced) {
  if (forced && *forced) return {true, true, join("prefill reads back: ", kSetting, "=1")};
  if (devices.empty()) {
    return {false, true,
            join("none: the blocks are in host memory", forced ? join(", ", kSetting, "=0") : "")};
  }
  const Answers answers = ask_all(devices);
  if (forced) {
    if (answers.unordered.empty()) return {false, true, join("none: ", kSetting, "=0")};
    return {false, false,
            join("none: ", kSetting, "=0, although writes of a NIC are not in order on ",
                 answers.unordered, ": a kernel may read old bytes")};
  }
  if (!answers.unordered.empty()) {
    return {true, true,
            join("prefill reads back: writes of a NIC are not in order on ", answers.unordered)};
  }
  return {false, true, join("none: writes of a NIC are in order on ", answers.ordered)};
}

void flush_writes(int device) {
  const CurrentDevice current(device);
  const Api& driver = opened_api();
  if (driver.flush_gpu_direct_rdma_writes == nullptr) {
    throw Error(Errc::kUnavailable,
                "the NVIDIA driver has no cuFlushGPUDirectRDMAWrites; one of CUDA 11.3 or newer is "
                "needed");
  }
  check(driver.flush_gpu_direct_rdma_writes(kFlushTargetCurrentContext, kFlushToOwner),
        "cuFlushGPUDirectRDMAWrites");
}

}  // namespace rdma_kv::cuda
