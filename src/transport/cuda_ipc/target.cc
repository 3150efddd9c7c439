#include "transport/cuda_ipc/target.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "cuda/copy_walk.h"

namespace rdma_kv::transport::cuda_ipc {
namespace {

bool is_this_process(const Offer& offer) {
  const process::Identity own = process::identity("cuda_ipc");
  return offer.process.pid == own.pid && offer.process.boot_id == own.boot_id &&
         offer.process.pid_namespace == own.pid_namespace;
}

// One process has one address space for all of its GPUs; a device may write to another's memory
// once it has been told so.
void reach_each_other(const cuda::Context& context, std::uint64_t address) {
  int ordinal = -1;
  cuda::check(cuda::api().pointer_get_attribute(&ordinal, cuda::kPointerDeviceOrdinal, address),
              "cuPointerGetAttribute");
  if (ordinal == context.ordinal()) return;
  const auto other = cuda::Context::of(ordinal);
  int can = 0;
  cuda::check(cuda::api().device_can_access_peer(&can, context.device(), other->device()),
              "cuDeviceCanAccessPeer");
  if (can == 0) {
    throw Error(Errc::kUnavailable, join("cuda_ipc: ", context.name(), " cannot reach ",
                                         other->name(), " (nvidia-smi topo -p2p w)"));
  }
  const cuda::Current current(context);
  const cuda::Status status = cuda::api().ctx_enable_peer_access(other->raw(), 0);
  if (status != cuda::kPeerAccessAlready) cuda::check(status, "cuCtxEnablePeerAccess");
}

}  // namespace

Target::Target(std::shared_ptr<const cuda::Context> context, const kv::Layout& layout,
               const kv::Mapping& mapping, const Offer& offer)
    : context_(std::move(context)) {
  const auto regions = mapping.layers() * mapping.tensors();
  if (is_this_process(offer)) {
    reach_each_other(*context_, mapping.dst_base(0));
  } else {
    const UniqueFd process = process::find_process(offer.process, "cuda_ipc");
    imports_.emplace(context_, offer.segments, [&](int descriptor) {
      return process::take_descriptor(process, offer.process.pid, descriptor, "cuda_ipc");
    });
  }
  std::vector<std::uint64_t> tables(regions * 2);
  dst_bases_.resize(regions);
  job_.tensor_count = mapping.tensors();
  std::vector<std::uint64_t> bits(mapping.tensors(), 0);
  for (std::uint32_t i = 0; i < regions; ++i) {
    const kv::Walk& walk = mapping.walk(i % mapping.tensors());
    const std::uint64_t span =
        (mapping.dst_blocks() - 1) * walk.dst_stride + walk.dst_offset + walk.bytes;
    dst_bases_[i] = imports_ ? imports_->translate(mapping.dst_base(i), span) : mapping.dst_base(i);
    tables[i] = layout.base(i) + walk.src_offset;
    tables[regions + i] = dst_bases_[i] + walk.dst_offset;
    bits[i % mapping.tensors()] |= tables[i] | tables[regions + i];
  }
  for (std::uint32_t t = 0; t < mapping.tensors(); ++t) {
    const kv::Walk& walk = mapping.walk(t);
    cuda::CopyWalk& cut = job_.walks[t];
    cut.src_stride = walk.src_stride;
    cut.dst_stride = walk.dst_stride;
    cut.bytes = walk.bytes;
    cuda::cut(cut, bits[t]);
  }
  const std::size_t bytes = tables.size() * sizeof tables[0];
  tables_.emplace(context_, bytes);
  const cuda::Current current(*context_);
  cuda::PinnedMemory pinned(context_, bytes);
  std::memcpy(pinned.data(), tables.data(), bytes);
  const cuda::Stream stream(context_);
  cuda::check(cuda::api().memcpy_htod_async(tables_->address(), pinned.data(), bytes, stream.raw()),
              "cuMemcpyHtoDAsync");
  cuda::check(cuda::api().stream_synchronize(stream.raw()), "cuStreamSynchronize");
  job_.src_bases = reinterpret_cast<const unsigned long long*>(tables_->address());
  job_.dst_bases = job_.src_bases + regions;
}

}  // namespace rdma_kv::transport::cuda_ipc
