// Block ids from Python without an object per block.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "kv/plan.h"

namespace rdma_kv::bindings {

// Holds a caller's ids for the length of one call: a borrowed buffer of int32/int64 where there is
// one, else a copy. Made and destroyed with the GIL held; view() needs none.
class IdList {
 public:
  // Throws Error(kType) for anything but integers and Error(kValue) for a shape that is not 1-D;
  // `side` ("local", "remote") goes into the message.
  IdList(pybind11::handle ids, const char* side);
  ~IdList();
  IdList(const IdList&) = delete;
  IdList& operator=(const IdList&) = delete;

  kv::BlockIds view() const noexcept;

 private:
  void take_buffer(pybind11::handle ids, const char* side);
  void take_sequence(pybind11::handle ids, const char* side);

  Py_buffer buffer_{};
  bool is_borrowed_ = false;
  std::vector<std::int64_t> copy_;
};

}  // namespace rdma_kv::bindings
