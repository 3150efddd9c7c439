#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "bindings/bind.h"
#include "bindings/engine_py.h"
#include "bindings/gil.h"
#include "bindings/stream_py.h"
#include "transport/tcp/inbound.h"
#include "transport/tcp/link.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::stream::Ticket;

Ticket tcp_accept(Engine& engine, const std::string& origin, std::uint64_t epoch,
                  const kv::Geometry& prefill, std::uint16_t streams) {
  need_host_memory(engine.layout(), "tcp");
  const transport::Origin from{origin, epoch};
  auto inbound =
      transport::tcp::make_inbound(engine.reactor(), engine.notices(), from,
                                   kv::Mapping::into_decode(prefill, engine.layout()), streams);
  return engine.acceptor()->expect(std::move(inbound), from, streams, kOpenWithin);
}

PyPeer tcp_open(const std::shared_ptr<Engine>& engine, const RemoteEnd& remote,
                std::uint16_t streams) {
  need_host_memory(engine->layout(), "tcp");
  return {engine->add_peer(remote, transport::tcp::open(remote, streams)), engine};
}

}  // namespace

void bind_tcp(py::module_& m) {
  m.def("tcp_accept", &tcp_accept, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
        py::arg("prefill"), py::arg("streams"), py::call_guard<GilReleased>());
  m.def("tcp_open", &tcp_open, py::arg("engine"), py::arg("remote"), py::arg("streams"),
        py::call_guard<GilReleased>());
}

}  // namespace rdma_kv::bindings
