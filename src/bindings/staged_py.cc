#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "bindings/bind.h"
#include "bindings/cma_py.h"
#include "bindings/engine_py.h"
#include "bindings/gil.h"
#include "bindings/stream_py.h"
#include "cuda/copy_kernel.h"
#include "cuda/export.h"
#include "transport/cma/link.h"
#include "transport/staged/inbound.h"
#include "transport/staged/link.h"
#include "transport/tcp/inbound.h"
#include "transport/tcp/link.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::staged::RemoteRing;
using transport::stream::StreamInbound;
using transport::stream::Ticket;

// What this side needs to stage its blocks; null when they are in host memory. Keeps the kernel,
// which takes a moment to compile.
struct PyStaging {
  std::shared_ptr<const cuda::CopyKernel> kernel;
};

// (address, slots, bytes of a slot, whether the blocks are on a GPU), as it is in the message.
using RingTuple = std::tuple<std::uint64_t, std::uint32_t, std::uint64_t, bool>;

PyStaging make_staging(const Engine& engine) {
  const kv::Layout& layout = engine.layout();
  if (!layout.has_device_memory()) return {};
  return {cuda::CopyKernel::of(cuda::only_device(layout))};
}

std::pair<Ticket, RingTuple> expect(Engine& engine, const transport::Origin& from,
                                    const PyStaging& staging, const kv::Geometry& prefill,
                                    std::uint16_t streams,
                                    const transport::staged::MakeInner& make_inner) {
  auto accepted =
      transport::staged::accept(engine.reactor(), engine.notices(), from, engine.layout(), prefill,
                                staging.kernel, streams, make_inner);
  const RemoteRing& ring = accepted.ring;
  const RingTuple told{ring.address, ring.shape.slots, ring.shape.slot_bytes, ring.is_on_gpu};
  return {engine.acceptor()->expect(std::move(accepted.inbound), from,
                                    static_cast<std::uint16_t>(streams + 1), kOpenWithin),
          told};
}

RemoteRing to_ring(const RingTuple& given) {
  const auto& [address, slots, slot_bytes, is_on_gpu] = given;
  return {{slots, slot_bytes}, address, is_on_gpu};
}

std::pair<Ticket, RingTuple> accept_tcp(const PyStaging& staging, Engine& engine,
                                        const std::string& origin, std::uint64_t epoch,
                                        const kv::Geometry& prefill, std::uint16_t streams) {
  const transport::Origin from{origin, epoch};
  return expect(engine, from, staging, prefill, streams,
                [&](transport::NoticeSink& sink, const kv::Layout& ring) {
                  return transport::tcp::make_inbound(
                      engine.reactor(), sink, from, kv::Mapping::into_decode(ring.geometry(), ring),
                      streams);
                });
}

std::pair<Ticket, RingTuple> accept_cma(const PyStaging& staging, Engine& engine,
                                        const std::string& origin, std::uint64_t epoch,
                                        const kv::Geometry& prefill, pid_t prefill_pid) {
  const transport::Origin from{origin, epoch};
  return expect(engine, from, staging, prefill, 1,
                [&](transport::NoticeSink& sink, const kv::Layout&) {
                  return transport::cma::make_inbound(engine.reactor(), sink, from, prefill_pid);
                });
}

PyPeer open(const PyStaging& staging, const std::shared_ptr<Engine>& engine,
            const RemoteEnd& remote, const RingTuple& ring, std::uint16_t streams,
            const transport::staged::OpenInner& open_inner) {
  return {engine->add_peer(remote, transport::staged::open(remote, to_ring(ring), engine->layout(),
                                                           staging.kernel, streams, open_inner)),
          engine};
}

PyPeer open_tcp(const PyStaging& staging, const std::shared_ptr<Engine>& engine,
                const RemoteEnd& remote, const RingTuple& ring, std::uint16_t streams) {
  return open(staging, engine, remote, ring, streams, [&](const RemoteEnd& end, const kv::Layout&) {
    return transport::tcp::open(end, streams);
  });
}

PyPeer open_cma(const PyStaging& staging, const std::shared_ptr<Engine>& engine,
                const RemoteEnd& remote, const RingTuple& ring, const py::dict& given) {
  const transport::cma::Offer offer = to_cma_offer(given);
  const GilReleased released;
  return open(staging, engine, remote, ring, 1, [&](const RemoteEnd& end, const kv::Layout&) {
    return transport::cma::open(end, offer);
  });
}

}  // namespace

void bind_staged(py::module_& m) {
  const py::call_guard<GilReleased> released;
  py::class_<PyStaging>(m, "Staging")
      .def(py::init(&make_staging), py::arg("engine"), released)
      .def("accept_tcp", &accept_tcp, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
           py::arg("prefill"), py::arg("streams"), released)
      .def("accept_cma", &accept_cma, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
           py::arg("prefill"), py::arg("prefill_pid"), released)
      .def("open_tcp", &open_tcp, py::arg("engine"), py::arg("remote"), py::arg("ring"),
           py::arg("streams"), released)
      .def("open_cma", &open_cma, py::arg("engine"), py::arg("remote"), py::arg("ring"),
           py::arg("offer"));
}

}  // namespace rdma_kv::bindings
