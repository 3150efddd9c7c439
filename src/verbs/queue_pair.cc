#include "verbs/queue_pair.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

namespace rdma_kv::verbs {
namespace {

// A packet is sent again this often before the peer counts as lost; the time of one try is
// configurable (KVCACHE_IB_TIMEOUT). The field takes 7, but soft-RoCE reads that as "for ever".
constexpr std::uint8_t kRetries = 6;
// 7 stands for ever. A receiver that is slow to post receives is alive; the transfer's deadline
// and the side stream bound how long it may be slow.
constexpr std::uint8_t kReceiverNotReadyRetries = 7;
// 0.08 ms: a reactor that was just descheduled has posted receives again by then.
constexpr std::uint8_t kReceiverNotReadyTimer = 6;
constexpr std::uint8_t kHopLimit = 64;

std::uint32_t random_psn() {
  std::random_device random;
  return random() & 0xffffffu;  // 24 bits on the wire
}

ibv_mtu mtu_code(std::uint32_t bytes) noexcept {
  const std::uint32_t within = std::clamp(bytes, 256u, 4096u);
  return static_cast<ibv_mtu>(std::bit_width(within) - std::bit_width(128u));
}

UniqueQp create(const Device& device, const CompletionQueue& queue, const QueuePairSpec& spec,
                const LocalPath& path) {
  ibv_qp_init_attr attr{};
  attr.send_cq = queue.get();
  attr.recv_cq = queue.get();
  attr.cap.max_send_wr = spec.send_depth;
  attr.cap.max_send_sge = spec.send_sges;
  attr.cap.max_recv_wr = spec.receive_depth;
  attr.qp_type = IBV_QPT_RC;
  attr.sq_sig_all = 0;
  UniqueQp made(lib().create_qp(device.pd(), &attr));
  if (made) return made;
  const int err = errno;
  throw Error(Errc::kUnavailable,
              join("ibv_create_qp: ", reason(err), ", ", spec.send_depth, " sends of ",
                   spec.send_sges, " pieces and ", spec.receive_depth, " receives on ", path.name,
                   " (it allows ", device.limits().max_qp_wr, " of ", device.limits().max_sge,
                   ", and ", device.limits().max_qp,
                   " queue pairs); ask for fewer (KVCACHE_QPS_PER_PEER)"));
}

void modify(ibv_qp* queue_pair, ibv_qp_attr& attr, int mask, const char* to,
            const std::string& where) {
  const int rc = lib().modify_qp(queue_pair, &attr, mask);
  if (rc == 0) return;
  throw Error(Errc::kHandshake,
              join("ibv_modify_qp to ", to, ": ", reason(rc), ", ", where,
                   "; can the two addresses reach each other, and are both GIDs of one kind "
                   "(KVCACHE_RDMA_GID_INDEX)?"));
}

}  // namespace

QueuePairSpec clamp(QueuePairSpec wanted, const ibv_device_attr& limits) noexcept {
  const auto most = [](std::uint32_t want, int limit) {
    return std::min(want, static_cast<std::uint32_t>(std::max(limit, 1)));
  };
  return {most(wanted.send_depth, limits.max_qp_wr), most(wanted.send_sges, limits.max_sge),
          most(wanted.receive_depth, limits.max_qp_wr)};
}

QueuePair::QueuePair(std::shared_ptr<const Device> device,
                     std::shared_ptr<const CompletionQueue> queue, QueuePairSpec spec,
                     const LocalPath& path, QueuePairAccess access)
    : device_(std::move(device)),
      queue_(std::move(queue)),
      spec_(clamp(spec, device_->limits())),
      queue_pair_(create(*device_, *queue_, spec_, path)),
      psn_(random_psn()) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.pkey_index = 0;  // the default partition
  attr.port_num = static_cast<std::uint8_t>(path.port);
  attr.qp_access_flags = (access.remote_write ? unsigned{IBV_ACCESS_REMOTE_WRITE} : 0u) |
                         (access.remote_read ? unsigned{IBV_ACCESS_REMOTE_READ} : 0u);
  modify(get(), attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT",
         path.name);
}

void QueuePair::connect(const LocalPath& path, const RemotePath& remote, int timeout) {
  const std::string where = join(path.name, ", to queue pair ", remote.number, " at GID ",
                                 text_of(remote.gid), ", LID ", remote.lid);
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = mtu_code(remote.mtu_bytes);
  attr.dest_qp_num = remote.number;
  attr.rq_psn = remote.psn;
  attr.max_dest_rd_atomic = static_cast<std::uint8_t>(
      std::clamp(device_->limits().max_qp_rd_atom, 1, kReadsUnderWay));
  attr.min_rnr_timer = kReceiverNotReadyTimer;
  attr.ah_attr.port_num = static_cast<std::uint8_t>(path.port);
  if (path.is_ethernet) {
    attr.ah_attr.is_global = 1;
    attr.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(path.gid_index);
    attr.ah_attr.grh.hop_limit = kHopLimit;
    std::memcpy(attr.ah_attr.grh.dgid.raw, remote.gid.data(), remote.gid.size());
  } else {
    attr.ah_attr.dlid = remote.lid;
  }
  modify(get(), attr,
         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
         "RTR", where);

  attr = {};
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = static_cast<std::uint8_t>(timeout);
  attr.retry_cnt = kRetries;
  attr.rnr_retry = kReceiverNotReadyRetries;
  attr.sq_psn = psn_;
  attr.max_rd_atomic = static_cast<std::uint8_t>(
      std::clamp(device_->limits().max_qp_init_rd_atom, 1, kReadsUnderWay));
  modify(get(), attr,
         IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
             IBV_QP_MAX_QP_RD_ATOMIC,
         "RTS", where);
}

bool QueuePair::stop() noexcept {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_ERR;
  return lib().modify_qp(get(), &attr, IBV_QP_STATE) == 0;
}

}  // namespace rdma_kv::verbs
