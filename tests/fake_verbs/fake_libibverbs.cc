// A FAKE libibverbs.so.1 with one made-up NIC, "fake0". It moves no byte: it writes down what is
// registered, and how, and refuses what its knobs tell it to.
//
//   FAKE_CALLS            file that the calls are appended to, one JSON object a line
//   FAKE_MAX_MR_SIZE      what the NIC reports; no larger region is taken
//   FAKE_REG_DMABUF       errno of ibv_reg_dmabuf_mr; 0: works
//   FAKE_REG_GPU_ADDRESS  errno of ibv_reg_mr for addresses of a GPU; 0: as with nvidia-peermem
//   FAKE_REG_HOST         errno of ibv_reg_mr for all other addresses
//   FAKE_REFUSE_ADDRESS   the errno of FAKE_REG_* counts for this address only
//
// Built with -DOLD it is one of before rdma-core 34, without ibv_reg_dmabuf_mr.

#include <infiniband/verbs.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "calls.h"

#undef ibv_reg_mr
#undef ibv_query_port

namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 60;
// As in the header of rdma-core 28 and newer.
constexpr unsigned kPageBytes = 4096;

ibv_device device_{};
ibv_pd pd_{};
std::uint32_t last_key = 0x1000;

bool is_gpu(std::uint64_t address) { return address >= fake::kGpuStart && address < fake::kGpuEnd; }

// The errno of a knob, if it counts for this address.
int refusal(const char* name, std::uint64_t address, int otherwise) {
  const int err = static_cast<int>(fake::number(name, static_cast<std::uint64_t>(otherwise)));
  return fake::number("FAKE_REFUSE_ADDRESS", address) == address ? err : 0;
}

ibv_mr* registered(int err, std::uint64_t bytes) {
  if (bytes > fake::number("FAKE_MAX_MR_SIZE", kMostBytes)) err = EINVAL;
  if (err != 0) {
    errno = err;
    return nullptr;
  }
  auto* const region = new ibv_mr{};
  region->lkey = ++last_key;
  region->rkey = last_key + 0x10000;
  return region;
}

ibv_mr* by_address(const char* call, void* data, std::size_t bytes, unsigned access,
                   std::uint64_t iova) {
  const auto address = reinterpret_cast<std::uint64_t>(data);
  fake::Call(call)
      .with("address", address)
      .with("bytes", bytes)
      .with("access", access)
      .with("iova", iova);
  return registered(is_gpu(address) ? refusal("FAKE_REG_GPU_ADDRESS", address, EFAULT)
                                    : refusal("FAKE_REG_HOST", address, 0),
                    bytes);
}

int unused() {
  errno = EOPNOTSUPP;
  return EOPNOTSUPP;
}

}  // namespace

extern "C" {

ibv_device** ibv_get_device_list(int* count) {
  std::strcpy(device_.name, "fake0");
  device_.node_type = IBV_NODE_CA;
  device_.transport_type = IBV_TRANSPORT_IB;
  *count = 1;
  return new ibv_device*[2]{&device_, nullptr};
}
void ibv_free_device_list(ibv_device** list) { delete[] list; }
const char* ibv_get_device_name(ibv_device* device) { return device->name; }

ibv_context* ibv_open_device(ibv_device* device) {
  auto* const context = new ibv_context{};
  context->device = device;
  context->cmd_fd = -1;
  context->async_fd = ::eventfd(0, EFD_CLOEXEC);
  return context;
}
int ibv_close_device(ibv_context* context) {
  ::close(context->async_fd);
  delete context;
  return 0;
}

int ibv_query_device(ibv_context*, ibv_device_attr* out) {
  *out = {};
  out->max_mr_size = fake::number("FAKE_MAX_MR_SIZE", kMostBytes);
  out->page_size_cap = kPageBytes;
  out->phys_port_cnt = 1;
  out->max_qp_wr = out->max_cqe = out->max_cq = 4096;
  out->max_sge = 16;
  return 0;
}
int ibv_query_port(ibv_context*, std::uint8_t, _compat_ibv_port_attr* place) {
  auto* const out = reinterpret_cast<ibv_port_attr*>(place);
  out->state = IBV_PORT_ACTIVE;
  out->active_mtu = IBV_MTU_4096;
  out->max_msg_sz = 1u << 30;
  out->gid_tbl_len = 1;
  out->link_layer = IBV_LINK_LAYER_ETHERNET;
  return 0;
}
int ibv_query_gid(ibv_context*, std::uint8_t, int, ibv_gid* out) {
  const std::uint8_t raw[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};
  std::memcpy(out->raw, raw, sizeof raw);
  return 0;
}

ibv_pd* ibv_alloc_pd(ibv_context* context) {
  pd_.context = context;
  return &pd_;
}
int ibv_dealloc_pd(ibv_pd*) { return 0; }

ibv_mr* ibv_reg_mr(ibv_pd*, void* data, std::size_t bytes, int access) {
  return by_address("ibv_reg_mr", data, bytes, static_cast<unsigned>(access),
                    reinterpret_cast<std::uint64_t>(data));
}
ibv_mr* ibv_reg_mr_iova2(ibv_pd*, void* data, std::size_t bytes, std::uint64_t iova,
                         unsigned access) {
  return by_address("ibv_reg_mr_iova2", data, bytes, access, iova);
}
#ifndef OLD
ibv_mr* ibv_reg_dmabuf_mr(ibv_pd*, std::uint64_t offset, std::size_t bytes, std::uint64_t iova,
                          int fd, int access) {
  struct stat buffer{};
  const bool is_open = ::fstat(fd, &buffer) == 0;
  fake::Call("ibv_reg_dmabuf_mr")
      .with("offset", offset)
      .with("bytes", bytes)
      .with("iova", iova)
      .with("access", static_cast<unsigned>(access))
      .with("buffer", is_open ? buffer.st_ino : 0)
      .with("buffer_bytes", is_open ? static_cast<std::uint64_t>(buffer.st_size) : 0);
  int err = refusal("FAKE_REG_DMABUF", iova, 0);
  // As the kernel has it: whole in the buffer, and as far into a page.
  if (err == 0 && !is_open) err = EBADF;
  if (err == 0 && offset + bytes > static_cast<std::uint64_t>(buffer.st_size)) err = EINVAL;
  if (err == 0 && offset % kPageBytes != iova % kPageBytes) err = EINVAL;
  return registered(err, bytes);
}
#endif
int ibv_dereg_mr(ibv_mr* region) {
  fake::Call("ibv_dereg_mr").with("lkey", region->lkey);
  delete region;
  return 0;
}

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  auto* const channel = new ibv_comp_channel{};
  channel->context = context;
  channel->fd = ::eventfd(0, EFD_CLOEXEC);
  return channel;
}
int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  ::close(channel->fd);
  delete channel;
  return 0;
}
int ibv_get_cq_event(ibv_comp_channel*, ibv_cq**, void**) { return -1; }
void ibv_ack_cq_events(ibv_cq*, unsigned) {}
int ibv_get_async_event(ibv_context*, ibv_async_event*) { return -1; }
void ibv_ack_async_event(ibv_async_event*) {}

// Nothing is ever connected.
ibv_cq* ibv_create_cq(ibv_context*, int, void*, ibv_comp_channel*, int) {
  unused();
  return nullptr;
}
int ibv_destroy_cq(ibv_cq*) { return unused(); }
ibv_qp* ibv_create_qp(ibv_pd*, ibv_qp_init_attr*) {
  unused();
  return nullptr;
}
int ibv_modify_qp(ibv_qp*, ibv_qp_attr*, int) { return unused(); }
int ibv_destroy_qp(ibv_qp*) { return unused(); }

const char* ibv_event_type_str(ibv_event_type) { return "an event of the fake"; }
const char* ibv_port_state_str(ibv_port_state) { return "PORT_ACTIVE"; }
const char* ibv_wc_status_str(ibv_wc_status) { return "a status of the fake"; }
int ibv_fork_init() { return 0; }

}  // extern "C"
