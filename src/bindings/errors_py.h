// Errors of the core as Python exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include "base/error.h"

namespace rdma_kv::bindings {

// The exception object for an error; needs the GIL.
pybind11::object to_exception(const Error& error);

}  // namespace rdma_kv::bindings
