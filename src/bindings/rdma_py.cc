#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/owner.h"
#include "bindings/bind.h"
#include "bindings/engine_py.h"

// The one place that knows of builds without the verbs header: setup.py then leaves src/verbs and
// src/transport/rdma out.
#ifdef RDMA_KV_HAVE_VERBS

#include "bindings/gil.h"
#include "transport/rdma/connector.h"
#include "transport/rdma/inbound.h"
#include "transport/rdma/rail.h"
#include "verbs/device.h"
#include "verbs/peer_memory.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;
using transport::rdma::Connector;
using transport::rdma::Endpoint;
using transport::rdma::Rail;
using transport::rdma::RailOptions;

// The peer opens its stream as soon as it has our answer.
constexpr Nanos kStreamWithin = 30 * kSecond;

struct PyRail {
  std::shared_ptr<Engine> engine;  // declared first: the rail needs its reactor to the end
  std::shared_ptr<const Rail> rail;
};

struct PyConnector {
  std::shared_ptr<Engine> engine;
  Connector connector;
};

py::bytes bytes_of(const verbs::Gid& gid) {
  return {reinterpret_cast<const char*>(gid.data()), gid.size()};
}

py::list gids_of(const verbs::PortInfo& port) {
  py::list out;
  for (const verbs::GidEntry& entry : port.gids) {
    py::dict gid;
    gid["index"] = entry.index;
    gid["gid"] = bytes_of(entry.gid);
    gid["type"] = verbs::name_of(entry.type);
    gid["text"] = verbs::text_of(entry.gid);
    out.append(std::move(gid));
  }
  return out;
}

py::list rdma_devices() {
  std::vector<verbs::PortInfo> ports;
  {
    const GilReleased released;
    ports = verbs::all_ports();
  }
  py::list out;
  for (const verbs::PortInfo& port : ports) {
    py::dict entry;
    entry["nic"] = port.nic;
    entry["port"] = port.port;
    entry["state"] = port.state;
    entry["link_layer"] = port.link_layer();
    entry["mtu"] = port.mtu_bytes;
    entry["lid"] = port.lid;
    entry["netdev"] = port.netdev;
    entry["rate_gbps"] = port.rate_gbps;
    entry["pci"] = port.pci;
    entry["gids"] = gids_of(port);
    out.append(std::move(entry));
  }
  return out;
}

PyRail make_rail(const std::shared_ptr<Engine>& engine, const std::string& nic, int gid_index,
                 int ib_timeout, bool relaxed_ordering, bool remote_read,
                 std::uint64_t most_mr_bytes, bool remote_write, const std::string& flush) {
  const GilReleased released;
  const RailOptions options{nic,         gid_index,    ib_timeout,    relaxed_ordering,
                            remote_read, remote_write, most_mr_bytes, flush};
  return {engine,
          std::shared_ptr<const Rail>(new Rail(engine->reactor(), engine->layout(), options),
                                      DeleteInOwner<const Rail>())};
}

Endpoint make_endpoint(const py::bytes& gid, std::uint16_t lid, std::uint32_t mtu,
                       const std::string& link_layer,
                       const std::vector<std::pair<std::uint32_t, std::uint32_t>>& qps) {
  Endpoint endpoint{{}, lid, mtu, link_layer, {}};
  const std::string_view given = gid;
  if (given.size() != endpoint.gid.size()) {
    throw Error(Errc::kValue, join("a GID has 16 bytes, this one ", given.size()));
  }
  std::copy(given.begin(), given.end(), endpoint.gid.begin());
  for (const auto& [number, psn] : qps) endpoint.queue_pairs.push_back({number, psn});
  return endpoint;
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> qps_of(const Endpoint& endpoint) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> out;
  for (const auto& qp : endpoint.queue_pairs) out.emplace_back(qp.number, qp.psn);
  return out;
}

std::pair<transport::stream::Ticket, Endpoint> rdma_accept(Engine& engine, const PyRail& rail,
                                                           const std::string& origin,
                                                           std::uint64_t epoch,
                                                           const kv::Geometry& prefill,
                                                           const Endpoint& remote) {
  const GilReleased released;
  kv::agree(prefill, engine.layout().geometry());
  const transport::Origin from{origin, epoch};
  auto inbound =
      std::make_unique<transport::rdma::RdmaInbound>(rail.rail, engine.notices(), from, remote);
  Endpoint endpoint = inbound->endpoint();
  return {engine.acceptor()->expect(std::move(inbound), from, 1, kStreamWithin),
          std::move(endpoint)};
}

PyPeer connect(PyConnector& self, const RemoteEnd& remote, const Endpoint& endpoint,
               std::vector<std::uint32_t> rkeys, bool flush) {
  const GilReleased released;
  auto link = self.connector.connect(remote, endpoint, std::move(rkeys), flush);
  return {self.engine->add_peer(remote, std::move(link)), self.engine};
}

void bind_rail(py::module_& m) {
  py::class_<PyRail>(m, "RdmaRail")
      .def(py::init(&make_rail), py::arg("engine"), py::arg("nic"), py::arg("gid_index"),
           py::arg("ib_timeout"), py::arg("relaxed_ordering"), py::arg("remote_read"),
           py::arg("most_mr_bytes") = 0, py::arg("remote_write") = true, py::arg("flush") = "")
      .def_property_readonly("nic", [](const PyRail& self) { return self.rail->port().nic; })
      .def_property_readonly("port", [](const PyRail& self) { return self.rail->port().port; })
      .def_property_readonly(
          "gid", [](const PyRail& self) { return bytes_of(self.rail->gid().entry.gid); })
      .def_property_readonly("gid_index",
                             [](const PyRail& self) { return self.rail->gid().entry.index; })
      .def_property_readonly("gid_reason",
                             [](const PyRail& self) { return self.rail->gid().reason; })
      .def_property_readonly("lid", [](const PyRail& self) { return self.rail->port().lid; })
      .def_property_readonly("mtu", [](const PyRail& self) { return self.rail->port().mtu_bytes; })
      .def_property_readonly("link_layer",
                             [](const PyRail& self) { return self.rail->port().link_layer(); })
      .def_property_readonly("rkeys", [](const PyRail& self) { return self.rail->rkeys(); })
      .def_property_readonly("registered_bytes",
                             [](const PyRail& self) { return self.rail->registered_bytes(); })
      .def_property_readonly("gpu_memory",
                             [](const PyRail& self) { return self.rail->gpu_memory(); })
      .def_property_readonly("remote_read",
                             [](const PyRail& self) { return self.rail->options().remote_read; })
      .def("describe", [](const PyRail& self) { return self.rail->describe(); });
}

void bind_endpoint(py::module_& m) {
  py::class_<Endpoint>(m, "RdmaEndpoint")
      .def(py::init(&make_endpoint), py::arg("gid"), py::arg("lid"), py::arg("mtu"),
           py::arg("link_layer"), py::arg("qps"))
      .def_property_readonly("gid", [](const Endpoint& self) { return bytes_of(self.gid); })
      .def_readonly("lid", &Endpoint::lid)
      .def_readonly("mtu", &Endpoint::mtu_bytes)
      .def_readonly("link_layer", &Endpoint::link_layer)
      .def_property_readonly("qps", &qps_of);
}

void bind_connector(py::module_& m) {
  py::class_<PyConnector>(m, "RdmaConnector")
      .def(py::init(
               [](const std::shared_ptr<Engine>& engine, const PyRail& rail, std::uint32_t qps) {
                 const GilReleased released;
                 return PyConnector{engine, Connector(rail.rail, qps)};
               }),
           py::arg("engine"), py::arg("rail"), py::arg("qps"))
      .def_property_readonly("endpoint",
                             [](const PyConnector& self) { return self.connector.endpoint(); })
      .def("connect", &connect, py::arg("remote"), py::arg("endpoint"), py::arg("rkeys"),
           py::arg("flush"));
}

}  // namespace

void bind_rdma(py::module_& m) {
  m.def("rdma_devices", &rdma_devices);
  m.def("peer_memory_module", &verbs::peer_memory_module);
  bind_endpoint(m);
  bind_rail(m);
  bind_connector(m);
  m.def("rdma_accept", &rdma_accept, py::arg("engine"), py::arg("rail"), py::arg("origin"),
        py::arg("epoch"), py::arg("prefill"), py::arg("remote"));
}

}  // namespace rdma_kv::bindings

#else  // no header

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

[[noreturn]] void no_header() {
  throw Error(Errc::kUnavailable,
              "this build has no verbs headers; install them (Debian: apt-get install "
              "libibverbs-dev) and build again");
}

struct NoRail {};
struct NoEndpoint {};
struct NoConnector {};

template <class T>
void bind_missing(py::module_& m, const char* name) {
  py::class_<T>(m, name).def(
      py::init([](const py::args&, const py::kwargs&) -> T { no_header(); }));
}

}  // namespace

void bind_rdma(py::module_& m) {
  const auto refuse = [](const py::args&, const py::kwargs&) { no_header(); };
  m.def("rdma_devices", refuse);
  m.def("peer_memory_module", [] { return ""; });
  m.def("rdma_accept", refuse);
  bind_missing<NoRail>(m, "RdmaRail");
  bind_missing<NoEndpoint>(m, "RdmaEndpoint");
  bind_missing<NoConnector>(m, "RdmaConnector");
}

}  // namespace rdma_kv::bindings

#endif
