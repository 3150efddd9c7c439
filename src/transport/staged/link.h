// Writes of blocks that the host's own ways do not reach: through a ring of host memory at each
// end, over an ordinary link between the two.
//
// Prefill gathers a chunk of a write into a free slot of its ring, the inner link (tcp, cma, rdma)
// writes the slot into the same slot of decode's ring, with a notice that names it, and decode
// scatters it into its blocks and answers on one more stream: the slot is free again. Several
// chunks are under way at once, so that gathering, the wire and scattering overlap. Either end may
// have its blocks on a GPU or in host memory.
#pragma once

#include <functional>
#include <memory>

#include "cuda/copy_kernel.h"
#include "kv/layout.h"
#include "transport/link.h"
#include "transport/remote_end.h"
#include "transport/staged/chunk.h"

namespace rdma_kv::transport::staged {

// What decode says of its ring.
struct RemoteRing {
  RingShape shape;
  std::uint64_t address = 0;
  bool is_on_gpu = false;  // the blocks behind it
};

// Opens the inner link, of `streams` streams, to the remote end it is given.
using OpenInner = std::function<std::unique_ptr<Link>(const RemoteEnd&, const kv::Layout& ring)>;

// `kernel`: of the GPU that the blocks of `layout` are on; null when they are in host memory.
// Blocks until remote.deadline. Throws Error as the inner link does, Error(kRegistration) when the
// ring cannot be had.
std::unique_ptr<Link> open(const RemoteEnd& remote, const RemoteRing& ring,
                           const kv::Layout& layout, std::shared_ptr<const cuda::CopyKernel> kernel,
                           std::uint16_t inner_streams, const OpenInner& open_inner);

}  // namespace rdma_kv::transport::staged
