#include "bindings/errors_py.h"

#include <pybind11/stl.h>

#include <map>
#include <string>

#include "bindings/bind.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

// Filled once by rdma_kv/_errors.py; never freed, since errors may be raised until the very end.
std::map<Errc, py::object>& types() {
  static auto* const map = new std::map<Errc, py::object>;
  return *map;
}

const std::map<std::string, Errc>& codes() {
  static const std::map<std::string, Errc> by_name{
      {"config", Errc::kConfig},
      {"registration", Errc::kRegistration},
      {"handshake", Errc::kHandshake},
      {"layout_mismatch", Errc::kLayoutMismatch},
      {"authentication", Errc::kAuthentication},
      {"unavailable", Errc::kUnavailable},
      {"transfer", Errc::kTransfer},
      {"peer_lost", Errc::kPeerLost},
      {"timeout", Errc::kTimeout},
      {"cancelled", Errc::kCancelled},
      {"revoked", Errc::kRevoked},
      {"not_quiesced", Errc::kNotQuiesced},
  };
  return by_name;
}

void set_error_types(const std::map<std::string, py::object>& given) {
  for (const auto& [name, code] : codes()) {
    const auto found = given.find(name);
    if (found == given.end()) throw py::key_error(name);
    types()[code] = found->second;
  }
}

}  // namespace

py::object to_exception(const Error& error) {
  if (error.code() == Errc::kValue) return py::handle(PyExc_ValueError)(error.what());
  if (error.code() == Errc::kType) return py::handle(PyExc_TypeError)(error.what());
  return types().at(error.code())(error.what());
}

void bind_errors(py::module_& m) {
  static PyObject* const base = PyErr_NewException("rdma_kv._core.CoreError", nullptr, nullptr);
  m.attr("CoreError") = py::handle(base);
  for (const auto& [name, code] : codes()) types()[code] = py::reinterpret_borrow<py::object>(base);
  m.def("set_error_types", &set_error_types, py::arg("types"));
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const py::object exception = to_exception(error);
      PyErr_SetObject(py::type::handle_of(exception).ptr(), exception.ptr());
    }
  });
}

}  // namespace rdma_kv::bindings
