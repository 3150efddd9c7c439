#include "bindings/bind.h"

PYBIND11_MODULE(_core, m) {
  namespace b = rdma_kv::bindings;
  m.doc() = "The C++ core of rdma_kv; private.";
  b::bind_errors(m);
  b::bind_log(m);
  b::bind_kv(m);
  b::bind_transfer(m);
  b::bind_engine(m);
  b::bind_tcp(m);
  b::bind_cma(m);
  b::bind_cuda(m);
  b::bind_cuda_ipc(m);
  b::bind_staged(m);
  b::bind_loopback(m);
  b::bind_rdma(m);
  b::bind_cuda_gdr(m);
}
