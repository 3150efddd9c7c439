// libcuda, opened at run time and never linked: the extension imports on machines without it.
#pragma once

#include <string>

#include "base/error.h"
#include "cuda/api.h"

namespace rdma_kv::cuda {

// Opens the driver and initialises it on the first call, once. Throws Error(kUnavailable) saying
// what is missing, and the same again on every later call.
const Api& api();

// Only once api() has returned: for paths that must not throw.
const Api& opened_api() noexcept;

// "CUDA_ERROR_OUT_OF_MEMORY (out of memory)".
std::string reason_of(Status status);

// Throws Error(code) with the call and the driver's words for what went wrong.
inline void check(Status status, const char* call, Errc code = Errc::kUnavailable) {
  if (status == kSuccess) return;
  throw Error(code, join(call, ": ", reason_of(status)));
}

// For releasing, which must not throw.
void note(Status status, const char* call) noexcept;

}  // namespace rdma_kv::cuda
