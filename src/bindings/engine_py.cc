#include "bindings/engine_py.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/owner.h"
#include "base/trace.h"
#include "bindings/bind.h"
#include "bindings/errors_py.h"
#include "bindings/gil.h"
#include "bindings/ids.h"
#include "bindings/wait.h"
#include "transport/stream/acceptor.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using engine::Engine;
using transport::RemoteEnd;

// How long a call that was interrupted waits for its write to stop. Longer than the engine needs
// to stop or to give up (engine/limits.h).
constexpr double kInterruptedWait = 5.0;

// (kind, handle): kind 0 is nothing, 1 an event, 2 a stream.
using AfterPair = std::pair<int, std::uint64_t>;

std::shared_ptr<engine::Transfer> write(const PyPeer& self, py::handle src, py::handle dst,
                                        kv::LayerRange layers, engine::Label label,
                                        double timeout_s, engine::Peer::Then then,
                                        const AfterPair& pair) {
  const IdList src_ids(src, "local");
  const IdList dst_ids(dst, "remote");
  const Nanos deadline = deadline_after(timeout_s);
  cuda::After after{static_cast<cuda::After::Kind>(pair.first), pair.second};
  const GilReleased released;
  if (!self.peer->orders_on_gpu()) cuda::wait_on_host(std::exchange(after, {}));
  return self.peer->write(src_ids.view(), dst_ids.view(), layers, label, deadline, then, after);
}

PyTransfer write_async(const PyPeer& self, py::handle src, py::handle dst,
                       std::uint32_t first_layer, std::uint32_t layer_count, std::uint32_t tag,
                       double timeout_s, bool notify, const AfterPair& after) {
  return {self.engine, write(self, src, dst, {first_layer, layer_count}, {tag, notify}, timeout_s,
                             engine::Peer::Then::kReturn, after)};
}

void write_wait(const PyPeer& self, py::handle src, py::handle dst, std::uint32_t first_layer,
                std::uint32_t layer_count, std::uint32_t tag, double timeout_s, bool notify,
                const AfterPair& after) {
  const auto transfer = write(self, src, dst, {first_layer, layer_count}, {tag, notify}, timeout_s,
                              engine::Peer::Then::kWait, after);
  try {
    wait_with_signals(kNever, [&](Nanos until) { return transfer->wait(until); });
  } catch (...) {  // a signal: nothing of this write may land after the caller has left
    const GilReleased released;
    transfer->cancel();
    transfer->wait(deadline_after(kInterruptedWait));
    throw;
  }
  transfer->rethrow();
}

// As write_wait(), without what most writes do not ask for: every argument costs.
void write_now(const PyPeer& self, py::handle src, py::handle dst, std::uint32_t first_layer,
               std::uint32_t layer_count, std::uint32_t tag, double timeout_s) {
  write_wait(self, src, dst, first_layer, layer_count, tag, timeout_s, true, {});
}

// write_wait(), and when the core was entered, and the nanoseconds from then to the end of each
// stage; 0 for those that the transport does not have.
py::dict write_traced(const PyPeer& self, py::handle src, py::handle dst, std::uint32_t first_layer,
                      std::uint32_t layer_count, std::uint32_t tag, double timeout_s) {
  Trace times;
  tracing = &times;
  trace(Stage::kEntered);
  try {
    write_wait(self, src, dst, first_layer, layer_count, tag, timeout_s, true, {});
  } catch (...) {
    tracing = nullptr;
    throw;
  }
  trace(Stage::kCompleted);
  tracing = nullptr;
  constexpr const char* kNames[] = {"entered", "begun",    "planned", "submitted",
                                    "tabled",  "launched", "landed",  "completed"};
  py::dict out;
  out[kNames[0]] = times.at[0];
  for (std::size_t i = 1; i < times.at.size(); ++i) {
    out[kNames[i]] = times.at[i] == 0 ? 0 : times.at[i] - times.at[0];
  }
  return out;
}

py::dict counters(const PyPeer& self) {
  const auto c = self.peer->counters();
  py::dict out;
  out["transfers_done"] = c.transfers_done;
  out["transfers_failed"] = c.transfers_failed;
  out["blocks_written"] = c.blocks_written;
  out["bytes_written"] = c.bytes_written;
  out["runs_written"] = c.runs_written;
  out["queued"] = c.queued;
  out["posts"] = c.link.posts;
  out["work_requests"] = c.link.work_requests;
  out["completions"] = c.link.completions;
  return out;
}

std::size_t wait_notices(Engine& self, std::uint32_t tag, std::size_t count, double timeout_s) {
  std::size_t here = 0;
  wait_with_signals(deadline_after(timeout_s), [&](Nanos until) {
    here = self.notices().take(tag, count, until);
    return here >= count || self.notices().is_closed() || self.notices().is_revoked(tag);
  });
  if (here < count && self.notices().is_closed()) {
    throw Error(Errc::kValue, "the communicator is closed");
  }
  if (here < count && self.notices().is_revoked(tag)) {
    throw Error(Errc::kRevoked,
                join("this side has revoked tag ", tag, ": no notice with it is delivered until ",
                     "allow(", tag, ")"));
  }
  return std::min(here, count);
}

py::list take_notices(Engine& self) {
  py::list out;
  for (const auto& notice : self.notices().take_all()) {
    out.append(py::make_tuple(notice.tag, notice.origin->name, notice.origin->epoch));
  }
  return out;
}

std::vector<transport::stream::InboundInfo> links_of(Engine& self) {
  const GilReleased released;
  return self.acceptor()->links();
}

py::list inbound_links(Engine& self) {
  py::list out;
  for (const auto& link : links_of(self)) {
    if (link.is_ended) continue;
    out.append(py::make_tuple(link.link_id, link.transport, link.origin.name, link.origin.epoch,
                              link.is_open));
  }
  return out;
}

py::list unquiesced_links(Engine& self) {
  py::list out;
  for (const auto& link : links_of(self)) {
    if (!link.is_ended) continue;
    out.append(py::make_tuple(link.link_id, link.transport, link.origin.name, link.origin.epoch,
                              link.why_ended));
  }
  return out;
}

py::list take_ended_links(Engine& self) {
  std::vector<transport::stream::EndedLink> links;
  {
    const GilReleased released;
    links = self.acceptor()->take_ended();
  }
  py::list out;
  for (const auto& link : links) out.append(py::make_tuple(link.link_id, link.why));
  return out;
}

py::list unquiesced_writes(const PyPeer& self) {
  py::list out;
  for (const auto& write : self.peer->unquiesced()) {
    py::list runs;
    for (const kv::Run& run : write.runs) {
      runs.append(py::make_tuple(run.src_block, run.dst_block, run.count));
    }
    out.append(py::make_tuple(write.tag, write.layers.first, write.layers.count, std::move(runs)));
  }
  return out;
}

std::vector<PyTransfer> revoke(const PyPeer& self, std::uint32_t tag) {
  const GilReleased released;
  std::vector<PyTransfer> out;
  for (auto& transfer : self.peer->revoke(tag)) out.push_back({self.engine, std::move(transfer)});
  return out;
}

RemoteEnd make_remote_end(const Engine& local, const std::string& name, const std::string& host,
                          std::uint16_t data_port, std::uint64_t epoch, std::uint64_t link_id,
                          const py::bytes& token, const kv::Geometry& geometry,
                          const std::vector<std::uint64_t>& bases, double timeout_s) {
  RemoteEnd remote{name, host, data_port, epoch, link_id, {}, nullptr, deadline_after(timeout_s)};
  const std::string_view given = token;
  if (given.size() != transport::kTokenBytes) {
    throw Error(Errc::kValue, join("token has ", given.size(), " bytes; must be 16"));
  }
  std::copy(given.begin(), given.end(), remote.token.begin());
  const std::vector<int> devices(bases.size(), kv::kHostDevice);
  remote.mapping = std::make_shared<const kv::Mapping>(
      bases.empty() ? kv::Mapping::from_prefill(local.layout(), geometry)
                    : kv::Mapping::between(local.layout(), kv::Layout(geometry, bases, devices)));
  return remote;
}

void bind_peer(py::module_& m) {
  py::class_<PyPeer>(m, "Peer")
      .def("write", &write_async, py::arg("src"), py::arg("dst"), py::arg("first_layer"),
           py::arg("layer_count"), py::arg("tag"), py::arg("timeout_s"), py::arg("notify") = true,
           py::arg("after") = AfterPair{})
      .def("write_wait", &write_wait, py::arg("src"), py::arg("dst"), py::arg("first_layer"),
           py::arg("layer_count"), py::arg("tag"), py::arg("timeout_s"), py::arg("notify") = true,
           py::arg("after") = AfterPair{})
      .def("write_now", &write_now, py::arg("src"), py::arg("dst"), py::arg("first_layer"),
           py::arg("layer_count"), py::arg("tag"), py::arg("timeout_s"))
      .def("write_traced", &write_traced, py::arg("src"), py::arg("dst"), py::arg("first_layer"),
           py::arg("layer_count"), py::arg("tag"), py::arg("timeout_s"))
      .def_property_readonly("alive", [](const PyPeer& self) { return self.peer->is_alive(); })
      .def(
          "look",
          [](const PyPeer& self) {
            self.peer->tick();
            return self.peer->is_alive();
          },
          py::call_guard<GilReleased>())
      .def_property_readonly("name", [](const PyPeer& self) { return self.peer->name(); })
      .def_property_readonly("epoch", [](const PyPeer& self) { return self.peer->epoch(); })
      .def_property_readonly("transport", [](const PyPeer& self) { return self.peer->transport(); })
      .def("describe", [](const PyPeer& self) { return self.peer->describe(); })
      .def("failure",
           [](const PyPeer& self) -> py::object {
             const auto failed = self.peer->failure();
             return failed ? to_exception(*failed) : py::none();
           })
      .def(
          "lose",
          [](const PyPeer& self, const std::string& why) {
            if (self.engine->is_owner()) self.peer->lose(why);
          },
          py::arg("why"), py::call_guard<GilReleased>())
      .def(
          "close",
          [](const PyPeer& self, double timeout_s) {
            if (self.engine->is_owner()) self.peer->close(deadline_after(timeout_s));
          },
          py::arg("timeout_s"), py::call_guard<GilReleased>())
      .def("revoke", &revoke, py::arg("tag"))
      .def(
          "allow", [](const PyPeer& self, std::uint32_t tag) { self.peer->allow(tag); },
          py::arg("tag"), py::call_guard<GilReleased>())
      .def("unquiesced", &unquiesced_writes)
      .def_property_readonly("is_over", [](const PyPeer& self) { return self.peer->is_gone(); })
      .def(
          "confirm_quiesced", [](const PyPeer& self) { self.peer->confirm_quiesced(); },
          py::call_guard<GilReleased>())
      .def("counters", &counters);
}

}  // namespace

void bind_engine(py::module_& m) {
  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine")
      .def(py::init([](kv::Layout layout) {
             return std::shared_ptr<Engine>(new Engine(std::move(layout)), DeleteInOwner<Engine>());
           }),
           py::arg("layout"))
      .def_property_readonly("epoch", &Engine::epoch)
      .def_property_readonly("layout", &Engine::layout)
      .def(
          "close", [](Engine& self, double timeout_s) { self.close(deadline_after(timeout_s)); },
          py::arg("timeout_s"), py::call_guard<GilReleased>())
      .def(
          "close_peers",
          [](Engine& self, double timeout_s) { self.close_peers(deadline_after(timeout_s)); },
          py::arg("timeout_s"), py::call_guard<GilReleased>())
      .def("listen", &Engine::listen, py::arg("address"), py::arg("port"),
           py::call_guard<GilReleased>())
      .def(
          "end_link",
          [](Engine& self, std::uint64_t link_id, const std::string& why, double timeout_s) {
            return self.acceptor()->end(link_id, why, deadline_after(timeout_s));
          },
          py::arg("link_id"), py::arg("why"), py::arg("timeout_s") = 0.0,
          py::call_guard<GilReleased>())
      .def(
          "end_epoch",
          [](Engine& self, std::uint64_t epoch, const std::string& why, double timeout_s) {
            return self.acceptor()->end_epoch(epoch, why, deadline_after(timeout_s));
          },
          py::arg("epoch"), py::arg("why"), py::arg("timeout_s") = 0.0,
          py::call_guard<GilReleased>())
      .def(
          "end_confirmed_links",
          [](Engine& self, const std::vector<std::uint64_t>& link_ids, std::uint64_t epoch,
             const std::string& why) { self.acceptor()->end_confirmed(link_ids, epoch, why); },
          py::arg("link_ids"), py::arg("epoch"), py::arg("why"), py::call_guard<GilReleased>())
      .def("unquiesced_links", &unquiesced_links)
      .def("take_ended_links", &take_ended_links)
      .def(
          "settle_notices", [](Engine& self) { self.acceptor()->settle(); },
          py::call_guard<GilReleased>())
      .def("ended_links_fd", [](Engine& self) { return self.acceptor()->ended_fd(); })
      .def("revoke_notices", [](Engine& self, std::uint32_t tag) { self.notices().revoke(tag); })
      .def("allow_notices", [](Engine& self, std::uint32_t tag) { self.notices().allow(tag); })
      .def("discard_notices_of_epoch",
           [](Engine& self, std::uint64_t epoch) { self.notices().discard_epoch(epoch); })
      .def("inbound_links", &inbound_links)
      .def("take_notices", &take_notices)
      .def("wait_notices", &wait_notices, py::arg("tag"), py::arg("count"), py::arg("timeout_s"))
      .def("notice_fd", [](Engine& self) { return self.notices().fd(); });
  py::class_<RemoteEnd>(m, "RemoteEnd")
      .def(py::init(&make_remote_end), py::arg("engine"), py::arg("name"), py::arg("host"),
           py::arg("data_port"), py::arg("epoch"), py::arg("link_id"), py::arg("token"),
           py::arg("geometry"), py::arg("bases"), py::arg("timeout_s"));
  py::class_<transport::stream::Ticket>(m, "Ticket")
      .def_readonly("link_id", &transport::stream::Ticket::link_id)
      .def_property_readonly("token", [](const transport::stream::Ticket& self) {
        return py::bytes(reinterpret_cast<const char*>(self.token.data()), self.token.size());
      });
  bind_peer(m);
}

}  // namespace rdma_kv::bindings
