#include "verbs/lib.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "base/error.h"

namespace rdma_kv::verbs {
namespace {

constexpr const char* kLibrary = "libibverbs.so.1";

[[noreturn]] void missing(const std::string& what) {
  throw Error(Errc::kUnavailable,
              join("rdma needs ", kLibrary, " of rdma-core: ", what,
                   "; install it (Debian: apt-get install libibverbs1 ibverbs-providers)"));
}

template <class Function>
void find_optional(void* library, const char* name, Function& out) {
  out = reinterpret_cast<Function>(::dlsym(library, name));
}

template <class Function>
void find(void* library, const char* name, Function& out) {
  find_optional(library, name, out);
  if (out == nullptr) missing(join("it has no ", name));
}

std::unique_ptr<const Lib> open() {
  // Never closed: the providers that it loads keep threads and handlers of their own.
  void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) missing(::dlerror());
  auto lib = std::make_unique<Lib>();
  find(library, "ibv_get_device_list", lib->get_device_list);
  find(library, "ibv_free_device_list", lib->free_device_list);
  find(library, "ibv_get_device_name", lib->get_device_name);
  find(library, "ibv_open_device", lib->open_device);
  find(library, "ibv_close_device", lib->close_device);
  find(library, "ibv_query_device", lib->query_device);
  find(library, "ibv_query_port", lib->query_port_compat);
  find(library, "ibv_query_gid", lib->query_gid);
  find(library, "ibv_alloc_pd", lib->alloc_pd);
  find(library, "ibv_dealloc_pd", lib->dealloc_pd);
  find(library, "ibv_reg_mr", lib->reg_mr);
  find_optional(library, "ibv_reg_mr_iova2", lib->reg_mr_iova2);
  find_optional(library, "ibv_reg_dmabuf_mr", lib->reg_dmabuf_mr);
  find(library, "ibv_dereg_mr", lib->dereg_mr);
  find(library, "ibv_create_comp_channel", lib->create_comp_channel);
  find(library, "ibv_destroy_comp_channel", lib->destroy_comp_channel);
  find(library, "ibv_create_cq", lib->create_cq);
  find(library, "ibv_destroy_cq", lib->destroy_cq);
  find(library, "ibv_get_cq_event", lib->get_cq_event);
  find(library, "ibv_ack_cq_events", lib->ack_cq_events);
  find(library, "ibv_create_qp", lib->create_qp);
  find(library, "ibv_modify_qp", lib->modify_qp);
  find(library, "ibv_destroy_qp", lib->destroy_qp);
  find(library, "ibv_get_async_event", lib->get_async_event);
  find(library, "ibv_ack_async_event", lib->ack_async_event);
  find(library, "ibv_event_type_str", lib->event_type_str);
  find(library, "ibv_port_state_str", lib->port_state_str);
  find(library, "ibv_wc_status_str", lib->wc_status_str);
  find(library, "ibv_fork_init", lib->fork_init);
  // Before anything is registered: on kernels that do not copy pinned pages at fork, a child
  // process (Python's subprocess) would otherwise leave the NIC with pages that are no longer ours.
  // Its failure only means that such a child is unsafe, as it would be without the call.
  lib->fork_init();
  return lib;
}

}  // namespace

int Lib::query_port(ibv_context* context, std::uint8_t port, ibv_port_attr* out) const noexcept {
  std::memset(out, 0, sizeof *out);  // the symbol fills the fields of its first version only
  return query_port_compat(context, port, reinterpret_cast<_compat_ibv_port_attr*>(out));
}

const Lib& lib() {
  static std::mutex mutex;
  static const Lib* opened = nullptr;  // never freed: owners may outlive every static object
  const std::lock_guard lock(mutex);
  if (opened == nullptr) opened = open().release();
  return *opened;
}

}  // namespace rdma_kv::verbs
