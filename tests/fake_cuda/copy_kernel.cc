// Built with traps for accesses that are not aligned: a GPU has no others.
#include "fake_cuda/copy_kernel.h"

#include <atomic>

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __grid_constant__
#define __shared__ static

namespace {

struct Dimensions {
  unsigned x = 0;
};
// The kernel's own body needs all threads of a block at once and is never called; see run_copy().
[[maybe_unused]] Dimensions threadIdx, blockIdx, blockDim, gridDim;
[[maybe_unused]] void __syncthreads() {}

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

template <class Value>
Value __ldcs(const Value* from) {
  return *from;
}

void __threadfence_system() { std::atomic_thread_fence(std::memory_order_seq_cst); }

std::atomic<bool> is_hurried{false};

unsigned long long host_nanoseconds() {
  static std::atomic<unsigned long long> hurried{0};
  if (is_hurried) return hurried += 1000000;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<unsigned long long>(now.tv_sec) * 1000000000u +
         static_cast<unsigned long long>(now.tv_nsec);
}

unsigned atomicAdd(unsigned* to, unsigned added) {
  return __atomic_fetch_add(to, added, __ATOMIC_ACQ_REL);
}

}  // namespace

#define rdma_kv_copy rdma_kv_copy_as_host_code
#include "cuda/copy_kernel.cu"
#undef rdma_kv_copy

namespace fake {

void run_copy(const rdma_kv::cuda::CopyJob& job, unsigned thread_blocks, unsigned threads) {
  using namespace rdma_kv::cuda;
  const unsigned warps_per_block = threads / kLanes;
  for (unsigned block = 0; block < thread_blocks; ++block) {
    const bool goes = job.gate == kOpen || may_begin(job);
    for (unsigned warp = 0; goes && warp < warps_per_block; ++warp) {
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        copy_share(job, block * warps_per_block + warp, thread_blocks * warps_per_block, lane);
      }
    }
    arrive(job);
  }
}

}  // namespace fake

// For tests that fill a job in by themselves.
extern "C" __attribute__((visibility("default"))) unsigned rdma_kv_fake_copy_job_bytes() {
  return sizeof(rdma_kv::cuda::CopyJob);
}

// A millisecond goes by with every look at the clock of the GPU: copies with a head start are late,
// unless they were told to go before they had begun.
extern "C" __attribute__((visibility("default"))) void rdma_kv_fake_hurry(int is_hurried_now) {
  is_hurried = is_hurried_now != 0;
}
