#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>

#include "base/error.h"
#include "bindings/bind.h"
#include "bindings/ids.h"
#include "kv/layout.h"
#include "kv/mapping.h"
#include "kv/plan.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

using TensorTuple = std::tuple<int, std::uint64_t, std::uint64_t>;

kv::Geometry make_geometry(std::uint32_t layers, std::uint64_t block_count,
                           const std::vector<TensorTuple>& tensors, const std::string& dtype,
                           std::uint32_t tp_size, std::uint32_t tp_rank) {
  kv::Geometry geometry{layers, block_count, {}, dtype, tp_size, tp_rank};
  for (const auto& [kind, block_bytes, stride_bytes] : tensors) {
    if (kind < 0 || kind >= kv::kMostTensors) {
      throw Error(Errc::kValue, join("tensor kind is ", kind, "; must be 0..3"));
    }
    geometry.tensors.push_back({static_cast<kv::TensorKind>(kind), block_bytes, stride_bytes});
  }
  geometry.check();
  return geometry;
}

std::vector<TensorTuple> tensors_of(const kv::Geometry& geometry) {
  std::vector<TensorTuple> out;
  for (const auto& tensor : geometry.tensors) {
    out.emplace_back(static_cast<int>(tensor.kind), tensor.block_bytes, tensor.stride_bytes);
  }
  return out;
}

std::vector<std::tuple<std::uint64_t, std::uint64_t, int>> regions_of(const kv::Layout& layout) {
  std::vector<std::tuple<std::uint64_t, std::uint64_t, int>> out;
  for (std::uint32_t i = 0; i < layout.region_count(); ++i) {
    const auto region = layout.region(i);
    out.emplace_back(region.base, region.bytes, region.device);
  }
  return out;
}

std::vector<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> agree(
    const kv::Geometry& prefill, const kv::Geometry& decode) {
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> out;
  for (const auto& slice : kv::agree(prefill, decode)) {
    out.emplace_back(slice.src_offset, slice.dst_offset, slice.bytes);
  }
  return out;
}

py::list plan_extents(const kv::Layout& prefill, const kv::Layout& decode, py::handle src,
                      py::handle dst, std::uint32_t first_layer, std::uint32_t layer_count) {
  const auto mapping = kv::Mapping::between(prefill, decode);
  const IdList src_ids(src, "local");
  const IdList dst_ids(dst, "remote");
  kv::Plan plan;
  plan.assign(mapping, src_ids.view(), dst_ids.view(), {first_layer, layer_count});
  kv::Cursor cursor(plan, mapping);
  py::list out;
  kv::Extent extents[7];  // small and odd, so that tests cross its border often
  while (const std::size_t got = cursor.next(extents, 7)) {
    for (std::size_t i = 0; i < got; ++i) {
      const auto& e = extents[i];
      out.append(py::make_tuple(e.src, e.dst, e.bytes, e.region));
    }
  }
  return out;
}

}  // namespace

void bind_kv(py::module_& m) {
  py::class_<kv::Geometry>(m, "Geometry")
      .def(py::init(&make_geometry), py::arg("layers"), py::arg("block_count"), py::arg("tensors"),
           py::arg("dtype") = "", py::arg("tp_size") = 1, py::arg("tp_rank") = 0)
      .def_readonly("layers", &kv::Geometry::layers)
      .def_readonly("block_count", &kv::Geometry::block_count)
      .def_property_readonly("tensors", &tensors_of)
      .def_readonly("dtype", &kv::Geometry::dtype)
      .def_readonly("tp_size", &kv::Geometry::tp_size)
      .def_readonly("tp_rank", &kv::Geometry::tp_rank)
      .def("__eq__", [](const kv::Geometry& a, const kv::Geometry& b) { return a == b; });
  py::class_<kv::Layout>(m, "Layout")
      .def(py::init<kv::Geometry, std::vector<std::uint64_t>, std::vector<int>>(),
           py::arg("geometry"), py::arg("bases"), py::arg("devices"))
      .def_property_readonly("geometry", &kv::Layout::geometry)
      .def_property_readonly("regions", &regions_of);
  m.def("agree", &agree, py::arg("prefill"), py::arg("decode"));
  m.def("plan_extents", &plan_extents, py::arg("prefill"), py::arg("decode"), py::arg("src"),
        py::arg("dst"), py::arg("first_layer"), py::arg("layer_count"));
}

}  // namespace rdma_kv::bindings
