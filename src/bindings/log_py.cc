#include <pybind11/stl.h>

#include "base/log.h"
#include "bindings/bind.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

py::dict features() {
  py::dict out;
  out["compiler"] = __VERSION__;
#ifdef RDMA_KV_HAVE_VERBS
  out["verbs"] = "yes";
#else
  out["verbs"] = "no: this build had no infiniband/verbs.h (Debian: libibverbs-dev)";
#endif
#if defined(__SANITIZE_ADDRESS__)
  out["sanitize"] = "address";
#elif defined(__SANITIZE_THREAD__)
  out["sanitize"] = "thread";
#else
  out["sanitize"] = "no";
#endif
  return out;
}

}  // namespace

void bind_log(py::module_& m) {
  m.def("features", &features);
  m.def("log_fd", &log_fd);
  m.def("drain_log", [] {
    py::list out;
    for (const auto& line : drain_log()) {
      out.append(py::make_tuple(static_cast<int>(line.level), line.text));
    }
    return out;
  });
}

}  // namespace rdma_kv::bindings
