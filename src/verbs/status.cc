#include "verbs/status.h"

namespace rdma_kv::verbs {
namespace {

struct Meaning {
  Errc code;
  const char* text;
};

Meaning meaning_of(ibv_wc_status status) noexcept {
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
      return {Errc::kPeerLost,
              "the peer's NIC does not answer: it is gone, its queue pair is, or packets are lost "
              "on the way; check that the peer lives, the GID and path MTU of both sides, and that "
              "no firewall drops RoCE (UDP port 4791)"};
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {Errc::kPeerLost, "the peer posts no receives for our notices; is it stuck?"};
    case IBV_WC_REM_ACCESS_ERR:
      return {Errc::kTransfer,
              "the peer's NIC refused the address: a wrong rkey, or memory that is no longer "
              "registered there; was the peer restarted or its cache freed? Connect again"};
    case IBV_WC_REM_INV_REQ_ERR:
      return {Errc::kTransfer,
              "the peer's NIC found the request invalid; do both sides run the same version?"};
    case IBV_WC_REM_OP_ERR:
      return {Errc::kTransfer, "the peer's NIC could not do it; look into the peer's kernel log"};
    case IBV_WC_LOC_PROT_ERR:
      return {Errc::kTransfer,
              "our NIC refused the source: memory that is no longer registered; was the local "
              "cache freed?"};
    case IBV_WC_LOC_QP_OP_ERR:
      return {Errc::kTransfer,
              "our NIC could not send it; is its port up, and the address there (rdma link, ip "
              "addr)? If both are well, please report this"};
    case IBV_WC_LOC_LEN_ERR:
      return {Errc::kTransfer, "our NIC found the request malformed; please report this"};
    case IBV_WC_WR_FLUSH_ERR:
      return {Errc::kPeerLost, "the queue pair was stopped before this was sent"};
    case IBV_WC_FATAL_ERR:
      return {Errc::kTransfer, "our NIC failed; look into the kernel log (dmesg)"};
    default:
      return {Errc::kTransfer, "look into the kernel log (dmesg)"};
  }
}

}  // namespace

Explained explain(const ibv_wc& completion) {
  const Meaning meaning = meaning_of(completion.status);
  return {meaning.code,
          join("work completion '", lib().wc_status_str(completion.status), "' (status ",
               static_cast<int>(completion.status), ", vendor error 0x", Hex{completion.vendor_err},
               "), queue pair ", completion.qp_num, ": ", meaning.text)};
}

}  // namespace rdma_kv::verbs
