#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bind.h"
#include "bindings/engine_py.h"
#include "bindings/gil.h"
#include "bindings/stream_py.h"
#include "cuda/copy_kernel.h"
#include "transport/cuda_ipc/link.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::cuda_ipc::Offer;
using transport::stream::Ticket;

// (bytes, handle, descriptor), as it is in the message.
using PieceTuple = std::tuple<std::uint64_t, py::bytes, int>;
using SegmentTuple = std::tuple<std::uint64_t, std::vector<PieceTuple>>;

// Exported once for a communicator; what it holds open closes with it.
struct PyExports {
  cuda::Exports exports;
  transport::process::Identity process;
};

std::vector<SegmentTuple> segments_of(const PyExports& self) {
  std::vector<SegmentTuple> out;
  for (const cuda::Segment& segment : self.exports.segments()) {
    std::vector<PieceTuple> pieces;
    for (const cuda::Piece& piece : segment.pieces) {
      const auto* const handle = reinterpret_cast<const char*>(piece.handle.data());
      pieces.emplace_back(piece.bytes, py::bytes(handle, piece.handle.size()), piece.descriptor);
    }
    out.emplace_back(segment.base, std::move(pieces));
  }
  return out;
}

Offer to_offer(const py::dict& given) {
  Offer offer;
  offer.process.pid = given["pid"].cast<pid_t>();
  offer.process.boot_id = given["boot_id"].cast<std::string>();
  offer.process.pid_namespace = given["pid_namespace"].cast<std::uint64_t>();
  for (const auto& [base, pieces] : given["segments"].cast<std::vector<SegmentTuple>>()) {
    cuda::Segment segment{base, 0, {}};
    for (const auto& [bytes, handle, descriptor] : pieces) {
      const std::string text = handle;
      segment.pieces.push_back({bytes, {text.begin(), text.end()}, descriptor});
      segment.bytes += bytes;
    }
    offer.segments.push_back(std::move(segment));
  }
  return offer;
}

Ticket cuda_ipc_accept(Engine& engine, const std::string& origin, std::uint64_t epoch,
                       const kv::Geometry& prefill, pid_t prefill_pid) {
  // The sender alone walks both layouts here; what they disagree about is refused all the same.
  (void)kv::agree(prefill, engine.layout().geometry());
  const transport::Origin from{origin, epoch};
  auto inbound =
      transport::cuda_ipc::make_inbound(engine.reactor(), engine.notices(), from, prefill_pid);
  return engine.acceptor()->expect(std::move(inbound), from, 1, kOpenWithin);
}

PyPeer cuda_ipc_open(const std::shared_ptr<Engine>& engine, const RemoteEnd& remote,
                     const py::dict& given) {
  const Offer offer = to_offer(given);
  const GilReleased released;
  return {engine->add_peer(remote, transport::cuda_ipc::open(remote, offer, engine->layout())),
          engine};
}

}  // namespace

void bind_cuda_ipc(py::module_& m) {
  py::class_<PyExports>(m, "CudaExports")
      .def(py::init([](const Engine& engine) {
             const GilReleased released;
             return PyExports{cuda::Exports(engine.layout()),
                              transport::process::identity("cuda_ipc")};
           }),
           py::arg("engine"))
      .def_property_readonly("pid", [](const PyExports& self) { return self.process.pid; })
      .def_property_readonly("boot_id", [](const PyExports& self) { return self.process.boot_id; })
      .def_property_readonly("pid_namespace",
                             [](const PyExports& self) { return self.process.pid_namespace; })
      .def_property_readonly("segments", &segments_of);
  // Whether this side could write: it has its blocks on one GPU, and the kernel for it.
  m.def(
      "cuda_ipc_check",
      [](const Engine& engine) { (void)cuda::CopyKernel::of(cuda::only_device(engine.layout())); },
      py::arg("engine"), py::call_guard<GilReleased>());
  m.def("cuda_ipc_accept", &cuda_ipc_accept, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
        py::arg("prefill"), py::arg("prefill_pid") = 0, py::call_guard<GilReleased>());
  m.def("cuda_ipc_open", &cuda_ipc_open, py::arg("engine"), py::arg("remote"), py::arg("offer"));
}

}  // namespace rdma_kv::bindings
