// What the copy kernel is told. Read by the host's compiler, by nvcc and by NVRTC, so nothing is
// included here and every type is spelled out.
#pragma once

namespace rdma_kv::cuda {

// One tensor of every layer: how its blocks are walked on both sides.
struct CopyWalk {
  unsigned long long src_stride;  // bytes from block to block; of a packed side: of one block
  unsigned long long dst_stride;
  unsigned long long src_packed;  // of a packed side: bytes from a layer's start to this tensor
  unsigned long long dst_packed;
  unsigned long long bytes;  // of one block
  unsigned pieces;           // of one block, each kAccessesPerPiece accesses but for the last
  unsigned width;            // bytes of one access: 1, 2, 4, 8 or 16; divides all of the above
};

// The number of a block on either side.
struct BlockPair {
  unsigned src;
  unsigned dst;
};

// Words in host memory through which a copy and the host speak; see copy_queue.h.
struct CopyWords {
  unsigned done;     // becomes CopyJob::done_value when every byte has landed
  unsigned started;  // becomes done_value when the copy begins, if it asks whether it may
  unsigned stop;     // done_value: do not begin
  unsigned go;       // done_value: the blocks are there, begin; for a copy with a head start
  unsigned late;     // becomes done_value when `go` did not come in time: not all was copied
};

// Whether a copy looks at its words before it begins.
enum CopyGate : unsigned {
  kOpen,   // no
  kAsks,   // it may have been stopped
  kWaits,  // it was launched before its blocks were known: until `go`, `stop`, or it is late
};

// How long a copy with a head start waits for `go`: many times what a host needs for it, and so
// short that a host that is held up does not keep the GPU from others.
constexpr unsigned long long kMostWaitNanos = 50000;

// A side is scattered (its blocks are found by number from the base of their region) or packed (all
// bytes in one run: layer, then tensor, then block in the order of `blocks`).
struct CopyJob {
  const unsigned long long* src_bases;  // by region: layer * tensors + tensor; null: packed
  const unsigned long long* dst_bases;
  unsigned long long src_start;  // of a packed side
  unsigned long long dst_start;
  unsigned long long layer_bytes;  // of a packed side
  const BlockPair* blocks;
  CopyWords* words;
  unsigned* arrivals;     // of thread blocks, counted on from copy to copy
  unsigned arrivals_end;  // what the last one of this copy counts to
  unsigned done_value;
  unsigned gate;  // CopyGate
  unsigned first_layer;
  unsigned layer_count;
  unsigned tensor_count;
  unsigned block_count;
  unsigned pieces_per_layer;
  CopyWalk walks[4];
};

constexpr unsigned kLanes = 32;
constexpr unsigned kAccessesPerLane = 4;  // loads in flight before the first store
constexpr unsigned kAccessesPerPiece = kLanes * kAccessesPerLane;

}  // namespace rdma_kv::cuda
