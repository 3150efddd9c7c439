// The project's own kernel, src/cuda/copy_kernel.cu, as the host's compiler sees it.
#pragma once

#include "cuda/copy_job.h"

namespace fake {

// One thread block after the other, and in each one thread after the other.
void run_copy(const rdma_kv::cuda::CopyJob& job, unsigned thread_blocks, unsigned threads);

}  // namespace fake
