#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "bindings/bind.h"
#include "bindings/gil.h"
#include "cuda/current_device.h"
#include "cuda/dmabuf.h"
#include "cuda/gpu_direct.h"
#include "cuda/write_order.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

// A piece of device memory to try things on. The device's primary context lives as long.
class ProbeMemory {
 public:
  ProbeMemory(int device, std::size_t bytes) : device_(device) {
    const cuda::CurrentDevice current(device);
    const cuda::Api& driver = cuda::api();
    cuda::check(driver.device_get(&number_, device), "cuDeviceGet");
    cuda::check(driver.mem_alloc(&address_, bytes), "cuMemAlloc");
    cuda::RawContext kept = nullptr;  // cannot fail: it is retained already
    cuda::note(driver.device_primary_ctx_retain(&kept, number_), "cuDevicePrimaryCtxRetain");
  }
  ProbeMemory(const ProbeMemory&) = delete;
  ProbeMemory& operator=(const ProbeMemory&) = delete;
  ~ProbeMemory() {
    const cuda::Api& driver = cuda::opened_api();
    try {
      const cuda::CurrentDevice current(device_);
      cuda::note(driver.mem_free(address_), "cuMemFree");
    } catch (const Error& error) {
      log(LogLevel::kWarning, error.what());
    }
    cuda::note(driver.device_primary_ctx_release(number_), "cuDevicePrimaryCtxRelease");
  }

  std::uint64_t address() const noexcept { return address_; }

 private:
  int device_;
  cuda::DeviceNumber number_ = 0;
  cuda::DevicePointer address_ = 0;
};

py::list gpu_direct_devices() {
  std::vector<cuda::GpuDirect> devices;
  {
    const GilReleased released;
    const int count = cuda::device_count();
    for (int device = 0; device < count; ++device) devices.push_back(cuda::ask(device));
  }
  py::list out;
  for (const cuda::GpuDirect& device : devices) {
    py::dict entry;
    entry["name"] = device.name;
    entry["dma_buf"] = device.dma_buf;
    entry["peer_memory"] = device.peer_memory;
    entry["ordering"] = device.ordering;
    entry["flush_options"] = device.flush_options;
    out.append(std::move(entry));
  }
  return out;
}

py::tuple flush_plan(const std::vector<int>& devices, std::optional<bool> forced) {
  cuda::FlushPlan plan;
  {
    const GilReleased released;
    plan = cuda::flush_plan(devices, forced);
  }
  return py::make_tuple(plan.by_reading, plan.is_enough, plan.reason);
}

}  // namespace

void bind_cuda_gdr(py::module_& m) {
  m.def("gpu_direct_devices", &gpu_direct_devices);
  m.def("flush_plan", &flush_plan, py::arg("devices"), py::arg("forced"));
  m.def("flush_writes", &cuda::flush_writes, py::arg("device"), py::call_guard<GilReleased>());
  py::class_<cuda::DmaBuf>(m, "DmaBuf")
      .def(py::init<cuda::DevicePointer, std::uint64_t, int>(), py::arg("address"), py::arg("size"),
           py::arg("device"), py::call_guard<GilReleased>())
      .def_property_readonly("fd", &cuda::DmaBuf::fd)
      .def_property_readonly("offset", &cuda::DmaBuf::offset)
      .def_property_readonly("bytes", &cuda::DmaBuf::bytes);
  py::class_<ProbeMemory>(m, "ProbeMemory")
      .def(py::init<int, std::size_t>(), py::arg("device"), py::arg("size"),
           py::call_guard<GilReleased>())
      .def_property_readonly("address", &ProbeMemory::address);
}

}  // namespace rdma_kv::bindings
