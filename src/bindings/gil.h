// Waiting without the GIL, and getting it back, if there is still an interpreter.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

namespace rdma_kv::bindings {

// Releases the GIL for as long as it lives. An interpreter that exits gives it to no daemon thread
// any more: CPython (before 3.14) ends such a thread instead, by unwinding its stack, and a
// destructor that is unwound from aborts the process. Here that thread stands still for the moment
// that is left.
class GilReleased {
 public:
  GilReleased() noexcept : state_(PyEval_SaveThread()) {}
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      while (true) ::pause();
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace rdma_kv::bindings
