// One bind_* function per file of this folder; module.cc calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace rdma_kv::bindings {

void bind_errors(pybind11::module_& m);
void bind_log(pybind11::module_& m);
void bind_kv(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_transfer(pybind11::module_& m);
void bind_tcp(pybind11::module_& m);
void bind_cma(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_cuda_ipc(pybind11::module_& m);
void bind_staged(pybind11::module_& m);
void bind_loopback(pybind11::module_& m);
void bind_rdma(pybind11::module_& m);
void bind_cuda_gdr(pybind11::module_& m);

}  // namespace rdma_kv::bindings
