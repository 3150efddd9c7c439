#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/bind.h"
#include "bindings/gil.h"
#include "cuda/context.h"
#include "cuda/copy_kernel.h"
#include "cuda/memory.h"
#include "cuda/nvrtc.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

py::list cuda_devices() {
  py::list out;
  int count = 0;
  cuda::check(cuda::api().device_get_count(&count), "cuDeviceGetCount");
  for (int i = 0; i < count; ++i) {
    const auto context = cuda::Context::of(i);
    py::dict device;
    device["name"] = context->name();
    device["compute_capability"] = py::make_tuple(context->attribute(cuda::kAttributeMajor),
                                                  context->attribute(cuda::kAttributeMinor));
    device["write_ordering"] = context->attribute(cuda::kAttributeGpuDirectWriteOrdering);
    out.append(std::move(device));
  }
  return out;
}

py::bytes cuda_read(int device, std::uint64_t address, std::size_t bytes) {
  std::string out(bytes, '\0');
  {
    const GilReleased released;
    const auto context = cuda::Context::of(device);
    const cuda::Stream stream(context);
    const cuda::Current current(*context);
    cuda::check(cuda::api().memcpy_dtoh_async(out.data(), address, bytes, stream.raw()),
                "cuMemcpyDtoHAsync");
    cuda::check(cuda::api().stream_synchronize(stream.raw()), "cuStreamSynchronize");
  }
  return {out};
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_devices", &cuda_devices);
  m.def("cuda_read", &cuda_read, py::arg("device"), py::arg("address"), py::arg("size"));
  m.def("set_nvrtc_candidates", &cuda::set_nvrtc_candidates, py::arg("paths"));
  m.def(
      "compile_copy_kernel",
      [](int major, int minor) {
        const GilReleased released;
        return cuda::compile(cuda::copy_kernel_source(), major, minor).size();
      },
      py::arg("major"), py::arg("minor"));
  m.def(
      "load_copy_kernel", [](int device) { return cuda::CopyKernel::of(device)->origin(); },
      py::arg("device"), py::call_guard<GilReleased>());
}

}  // namespace rdma_kv::bindings
