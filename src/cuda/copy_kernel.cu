// The one kernel of the project: copies blocks between two sides, each scattered or packed. Built
// by nvcc or, at run time, by NVRTC; tests build it as plain C++, one thread after the other
// (tests/fake_cuda/). Source of the memory-ordering rules: the PTX ISA's chapter "Memory
// Consistency Model" (fences are cumulative, a barrier orders the threads of a block).

namespace rdma_kv::cuda {

__device__ inline unsigned long long nanoseconds() {
#ifdef __CUDA_ARCH__
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
#else
  return host_nanoseconds();
#endif
}

// Orders what was read and written before it, by those whom this thread has met too, before what
// comes after it, for the whole system. Cheaper than __threadfence_system(), which also puts all
// such fences in one order; only may_begin() needs that.
__device__ inline void publish() {
#ifdef __CUDA_ARCH__
  asm volatile("fence.acq_rel.sys;" ::: "memory");
#else
  __threadfence_system();
#endif
}

// Every thread block decides for itself; should only some be late, the host copies all once more.
__device__ inline bool await_go(const CopyJob& job) {
  volatile CopyWords* const words = job.words;
  const unsigned long long end = nanoseconds() + kMostWaitNanos;
  while (words->go != job.done_value) {
    if (words->stop == job.done_value) return false;
    if (nanoseconds() < end) continue;
    words->late = job.done_value;
    return false;
  }
  publish();  // the blocks were written before `go`
  return true;
}

// Whether a copy that asks may begin. It says that it begins before it looks, and the host that
// stops it looks after it has said so: at least one of the two sees the other.
__device__ inline bool may_begin(const CopyJob& job) {
  if (job.gate == kWaits) return await_go(job);
  volatile CopyWords* const words = job.words;
  words->started = job.done_value;
  __threadfence_system();
  return words->stop != job.done_value;
}

template <class Access>
__device__ inline void copy_piece(const char* from, char* to, unsigned accesses, unsigned lane) {
  const Access* const src = reinterpret_cast<const Access*>(from);
  Access* const dst = reinterpret_cast<Access*>(to);
  Access held[kAccessesPerLane];
#pragma unroll
  for (unsigned i = 0; i < kAccessesPerLane; ++i) {
    const unsigned at = lane + i * kLanes;
    if (at < accesses) held[i] = __ldcs(src + at);
  }
#pragma unroll
  for (unsigned i = 0; i < kAccessesPerLane; ++i) {
    const unsigned at = lane + i * kLanes;
    if (at < accesses) dst[at] = held[i];
  }
}

__device__ inline void copy_one(const CopyJob& job, unsigned number, unsigned lane) {
  const unsigned layer = number / job.pieces_per_layer;
  unsigned rest = number % job.pieces_per_layer;
  unsigned tensor = 0;
  while (rest >= job.walks[tensor].pieces * job.block_count) {
    rest -= job.walks[tensor].pieces * job.block_count;
    ++tensor;
  }
  const CopyWalk& walk = job.walks[tensor];
  const unsigned index = rest / walk.pieces;
  const unsigned piece = rest % walk.pieces;
  const BlockPair block = job.blocks[index];
  const unsigned region = (job.first_layer + layer) * job.tensor_count + tensor;
  const unsigned long long offset =
      static_cast<unsigned long long>(piece) * kAccessesPerPiece * walk.width;
  const unsigned long long packed = layer * job.layer_bytes;
  const unsigned long long src =
      (job.src_bases != nullptr
           ? job.src_bases[region] + block.src * walk.src_stride
           : job.src_start + packed + walk.src_packed + index * walk.src_stride) +
      offset;
  const unsigned long long dst =
      (job.dst_bases != nullptr
           ? job.dst_bases[region] + block.dst * walk.dst_stride
           : job.dst_start + packed + walk.dst_packed + index * walk.dst_stride) +
      offset;
  const unsigned long long left = (walk.bytes - offset) / walk.width;
  const unsigned accesses =
      left < kAccessesPerPiece ? static_cast<unsigned>(left) : kAccessesPerPiece;
  const char* const from = reinterpret_cast<const char*>(src);
  char* const to = reinterpret_cast<char*>(dst);
  switch (walk.width) {
    case 16:
      return copy_piece<uint4>(from, to, accesses, lane);
    case 8:
      return copy_piece<uint2>(from, to, accesses, lane);
    case 4:
      return copy_piece<unsigned>(from, to, accesses, lane);
    case 2:
      return copy_piece<unsigned short>(from, to, accesses, lane);
    default:
      return copy_piece<unsigned char>(from, to, accesses, lane);
  }
}

// What one of `warps` warps has to do.
__device__ inline void copy_share(const CopyJob& job, unsigned warp, unsigned warps,
                                  unsigned lane) {
  const unsigned pieces = job.pieces_per_layer * job.layer_count;
  for (unsigned long long number = warp; number < pieces; number += warps) {
    copy_one(job, static_cast<unsigned>(number), lane);
  }
}

// By one thread of a block whose threads have all met: the last block of all tells the host.
__device__ inline void arrive(const CopyJob& job) {
  publish();
  if (atomicAdd(job.arrivals, 1u) + 1 != job.arrivals_end) return;
  publish();
  static_cast<volatile CopyWords*>(job.words)->done = job.done_value;
}

}  // namespace rdma_kv::cuda

extern "C" __global__ void __launch_bounds__(1024)
    rdma_kv_copy(const __grid_constant__ rdma_kv::cuda::CopyJob job) {
  using namespace rdma_kv::cuda;
  __shared__ bool goes;
  if (threadIdx.x == 0) goes = job.gate == kOpen || may_begin(job);
  __syncthreads();
  if (goes) {
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    copy_share(job, thread / kLanes, gridDim.x * blockDim.x / kLanes, thread % kLanes);
  }
  __syncthreads();
  if (threadIdx.x == 0) arrive(job);
}
