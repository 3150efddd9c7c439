#include <pybind11/stl.h>

#include "bindings/bind.h"
#include "bindings/engine_py.h"
#include "bindings/errors_py.h"
#include "bindings/wait.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

// In a forked child nobody moves a transfer any more, and its locks may be held for ever.
void check_owner(const PyTransfer& self) {
  if (!self.transfer->is_done()) self.engine->check_owner();
}

bool wait(const PyTransfer& self, std::optional<double> timeout_s) {
  check_owner(self);
  const bool has_ended = wait_with_signals(deadline_of(timeout_s),
                                           [&](Nanos until) { return self.transfer->wait(until); });
  if (has_ended) self.transfer->rethrow();
  return has_ended;
}

py::object error(const PyTransfer& self) {
  const auto failed = self.transfer->error();
  return failed ? to_exception(*failed) : py::none();
}

py::dict stats(const PyTransfer& self) {
  check_owner(self);
  const auto stats = self.transfer->stats();
  py::dict out;
  out["blocks"] = stats.blocks;
  out["bytes"] = stats.bytes;
  out["runs"] = stats.runs;
  out["submitted_ns"] = stats.submitted;
  out["started_ns"] = stats.started;
  out["finished_ns"] = stats.finished;
  return out;
}

}  // namespace

void bind_transfer(py::module_& m) {
  py::class_<PyTransfer>(m, "Transfer")
      .def("wait", &wait, py::arg("timeout_s") = py::none())
      .def("done", [](const PyTransfer& self) { return self.transfer->is_done(); })
      .def(
          "cancel",
          [](const PyTransfer& self) {
            check_owner(self);
            self.transfer->cancel();
          },
          py::call_guard<py::gil_scoped_release>())
      .def("error", &error)
      .def("fileno",
           [](const PyTransfer& self) {
             check_owner(self);
             return self.transfer->done_fd();
           })
      .def_property_readonly("stats", &stats);
}

}  // namespace rdma_kv::bindings
