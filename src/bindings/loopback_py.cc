#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>

#include "bindings/bind.h"
#include "bindings/engine_py.h"
#include "bindings/gil.h"
#include "bindings/stream_py.h"
#include "transport/loopback/end.h"
#include "transport/loopback/faults.h"
#include "transport/loopback/link.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::loopback::End;
using transport::loopback::Faults;
using transport::stream::Ticket;

Ticket loopback_accept(Engine& engine, const std::string& origin, std::uint64_t epoch,
                       const kv::Geometry& prefill) {
  need_host_memory(engine.layout(), "loopback");
  (void)kv::agree(prefill, engine.layout().geometry());
  const transport::Origin from{origin, epoch};
  const auto end = std::make_shared<End>(engine.notices(), from);
  const Ticket ticket =
      engine.acceptor()->expect(transport::loopback::make_inbound(end), from, 0, kOpenWithin);
  transport::loopback::publish(engine.epoch(), ticket, end);
  return ticket;
}

PyPeer loopback_open(const std::shared_ptr<Engine>& engine, const RemoteEnd& remote) {
  need_host_memory(engine->layout(), "loopback");
  return {engine->add_peer(remote, transport::loopback::open(remote)), engine};
}

void delay(Faults& faults, double seconds) {
  constexpr double kLongest = 1e6;  // also what keeps the conversion within its type
  if (!(seconds >= 0 && seconds <= kLongest)) {
    throw Error(Errc::kValue, join("delay of ", seconds, " s; must be 0..", kLongest));
  }
  faults.delay(static_cast<Nanos>(seconds * static_cast<double>(kSecond)));
}

}  // namespace

void bind_loopback(py::module_& m) {
  py::class_<Faults, std::unique_ptr<Faults, py::nodelete>>(m, "LoopbackFaults")
      .def("drop", &Faults::drop, py::arg("transfers"))
      .def("delay", &delay, py::arg("seconds"))
      .def("cut", &Faults::cut, py::arg("after_bytes"))
      .def("clear", &Faults::clear);
  m.def("loopback_faults", &transport::loopback::faults, py::return_value_policy::reference);
  m.def("loopback_accept", &loopback_accept, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
        py::arg("prefill"), py::call_guard<GilReleased>());
  m.def("loopback_open", &loopback_open, py::arg("engine"), py::arg("remote"),
        py::call_guard<GilReleased>());
}

}  // namespace rdma_kv::bindings
