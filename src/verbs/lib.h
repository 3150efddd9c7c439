// libibverbs, opened at run time and never linked: the extension imports on machines without it.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace rdma_kv::verbs {

// The library's functions that are symbols of it. What <infiniband/verbs.h> defines inline through
// the context's own table (ibv_post_send, ibv_poll_cq, ...) is called as it is.
struct Lib {
  decltype(&::ibv_get_device_list) get_device_list;
  decltype(&::ibv_free_device_list) free_device_list;
  decltype(&::ibv_get_device_name) get_device_name;
  decltype(&::ibv_open_device) open_device;
  decltype(&::ibv_close_device) close_device;
  decltype(&::ibv_query_device) query_device;
  decltype(&::ibv_query_port) query_port_compat;  // use query_port() below
  decltype(&::ibv_query_gid) query_gid;
  decltype(&::ibv_alloc_pd) alloc_pd;
  decltype(&::ibv_dealloc_pd) dealloc_pd;
  decltype(&::ibv_reg_mr) reg_mr;
  decltype(&::ibv_reg_mr_iova2) reg_mr_iova2;  // null before rdma-core 29: no relaxed ordering
  // Null before rdma-core 34, whose header does not declare it either.
  ibv_mr* (*reg_dmabuf_mr)(ibv_pd* pd, std::uint64_t offset, std::size_t length, std::uint64_t iova,
                           int fd, int access);
  decltype(&::ibv_dereg_mr) dereg_mr;
  decltype(&::ibv_create_comp_channel) create_comp_channel;
  decltype(&::ibv_destroy_comp_channel) destroy_comp_channel;
  decltype(&::ibv_create_cq) create_cq;
  decltype(&::ibv_destroy_cq) destroy_cq;
  decltype(&::ibv_get_cq_event) get_cq_event;
  decltype(&::ibv_ack_cq_events) ack_cq_events;
  decltype(&::ibv_create_qp) create_qp;
  decltype(&::ibv_modify_qp) modify_qp;
  decltype(&::ibv_destroy_qp) destroy_qp;
  decltype(&::ibv_get_async_event) get_async_event;
  decltype(&::ibv_ack_async_event) ack_async_event;
  decltype(&::ibv_event_type_str) event_type_str;
  decltype(&::ibv_port_state_str) port_state_str;
  decltype(&::ibv_wc_status_str) wc_status_str;
  decltype(&::ibv_fork_init) fork_init;

  // The header's own wrapper would refer to the linked symbol.
  int query_port(ibv_context* context, std::uint8_t port, ibv_port_attr* out) const noexcept;
};

// Opens the library on the first call, once. Throws Error(kUnavailable) saying what is missing.
const Lib& lib();

}  // namespace rdma_kv::verbs
