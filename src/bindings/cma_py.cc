#include "bindings/cma_py.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "bindings/bind.h"
#include "bindings/engine_py.h"
#include "bindings/gil.h"
#include "bindings/stream_py.h"
#include "transport/cma/link.h"
#include "transport/cma/offer.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::cma::Offer;
using transport::stream::Ticket;

py::dict cma_offer(const Engine&) {
  const Offer offer = transport::cma::make_offer();
  py::dict out;
  out["pid"] = offer.process.pid;
  out["boot_id"] = offer.process.boot_id;
  out["pid_namespace"] = offer.process.pid_namespace;
  out["probe_address"] = offer.probe_address;
  out["probe_nonce"] =
      py::bytes(reinterpret_cast<const char*>(offer.probe_nonce.data()), offer.probe_nonce.size());
  return out;
}

Ticket cma_accept(Engine& engine, const std::string& origin, std::uint64_t epoch,
                  const kv::Geometry& prefill, pid_t prefill_pid) {
  need_host_memory(engine.layout(), "cma");
  // The sender alone walks both layouts here; what they disagree about is refused all the same.
  (void)kv::agree(prefill, engine.layout().geometry());
  const transport::Origin from{origin, epoch};
  auto inbound =
      transport::cma::make_inbound(engine.reactor(), engine.notices(), from, prefill_pid);
  return engine.acceptor()->expect(std::move(inbound), from, 1, kOpenWithin);
}

PyPeer cma_open(const std::shared_ptr<Engine>& engine, const RemoteEnd& remote,
                const py::dict& given) {
  const Offer offer = to_cma_offer(given);
  const GilReleased released;
  need_host_memory(engine->layout(), "cma");
  return {engine->add_peer(remote, transport::cma::open(remote, offer)), engine};
}

}  // namespace

transport::cma::Offer to_cma_offer(const py::dict& given) {
  Offer offer;
  offer.process.pid = given["pid"].cast<pid_t>();
  offer.process.boot_id = given["boot_id"].cast<std::string>();
  offer.process.pid_namespace = given["pid_namespace"].cast<std::uint64_t>();
  offer.probe_address = given["probe_address"].cast<std::uint64_t>();
  const auto bytes = given["probe_nonce"].cast<py::bytes>();
  const std::string_view nonce = bytes;
  if (nonce.size() != offer.probe_nonce.size()) {
    throw Error(Errc::kValue, join("probe_nonce has ", nonce.size(), " bytes; must be ",
                                   offer.probe_nonce.size()));
  }
  std::copy(nonce.begin(), nonce.end(), offer.probe_nonce.begin());
  return offer;
}

void bind_cma(py::module_& m) {
  m.def("cma_offer", &cma_offer, py::arg("engine"));
  m.def("cma_accept", &cma_accept, py::arg("engine"), py::arg("origin"), py::arg("epoch"),
        py::arg("prefill"), py::arg("prefill_pid") = 0, py::call_guard<GilReleased>());
  m.def("cma_open", &cma_open, py::arg("engine"), py::arg("remote"), py::arg("offer"));
}

}  // namespace rdma_kv::bindings
