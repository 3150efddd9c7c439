// Whether what a NIC has written to a GPU has to be flushed before a kernel may read it.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace rdma_kv::cuda {

// One way only: prefill reads back what it wrote (RDMA READ), on the same queue pair, before its
// write counts as done and before the notice. The receiver's own call, flush_writes(), is cheaper
// and comes too late: prefill's write is done when its NIC has the answer of decode's, with no
// code of decode in between, and without a tag decode never hears of it. Yet what is done must be
// readable.
struct FlushPlan {
  bool by_reading = false;
  bool is_enough = true;  // no: the setting forbids what a GPU needs
  std::string reason;     // a sentence that begins with the way
};

// For regions on these devices, by ordinal. `forced`: KVCACHE_GDRCOPY_FLUSH_ENABLE, empty: auto. A
// GPU that does not tell is taken for one that needs it. Never throws for lack of a driver.
FlushPlan flush_plan(const std::vector<int>& devices, std::optional<bool> forced);

// cuFlushGPUDirectRDMAWrites: returns once all that NICs have written to the device by now can be
// read by its kernels. Throws Error(kUnavailable).
void flush_writes(int device);

}  // namespace rdma_kv::cuda
