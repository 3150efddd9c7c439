// The run-time compiler of CUDA, opened at run time and never linked.
#pragma once

#include <string>
#include <vector>

namespace rdma_kv::cuda {

// Where to look for libnvrtc beside the linker's own places: files, best first. Python tells, as
// the wheels of NVIDIA keep it in folders of their own. Any thread.
void set_nvrtc_candidates(std::vector<std::string> paths);

// Compiles for a device of compute capability `major`.`minor`: a cubin, or PTX where the compiler
// is older than the device. Throws Error(kUnavailable) with the remedy, or the compiler's words.
std::vector<char> compile(const char* source, int major, int minor);

}  // namespace rdma_kv::cuda
