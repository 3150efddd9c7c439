// What a GPU says about NICs that read and write its memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace rdma_kv::cuda {

// Numbers are the driver's answers; empty where it is too old to know the question.
struct GpuDirect {
  std::string name;                  // "CUDA device 0 (NVIDIA H200)"
  std::optional<int> dma_buf;        // 1: memory can be exported as a dma-buf
  std::optional<int> peer_memory;    // 1: nvidia-peermem may pin its memory
  std::optional<int> ordering;       // kOrdering*: for whom writes of a NIC are in order
  std::optional<int> flush_options;  // kFlushByHost: has cuFlushGPUDirectRDMAWrites
};

// By ordinal, as in a kv::Region. Needs no context. Throws Error(kUnavailable).
GpuDirect ask(int device);

int device_count();  // throws Error(kUnavailable)

// For messages, where ask() may fail, too.
std::string name_of(int device);

}  // namespace rdma_kv::cuda
