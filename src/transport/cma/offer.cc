#include "transport/cma/offer.h"

#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace rdma_kv::transport::cma {
namespace {

[[noreturn]] void unavailable(const std::string& why) {
  throw Error(Errc::kUnavailable, "cma: " + why);
}

// One per process, at one address for its whole life.
const Nonce& own_nonce() {
  static const Nonce nonce = [] {
    Nonce fresh{};
    if (::getrandom(fresh.data(), fresh.size(), 0) != static_cast<ssize_t>(fresh.size())) {
      const int err = errno;
      unavailable(join("getrandom: ", reason(err)));
    }
    return fresh;
  }();
  return nonce;
}

void probe(const Offer& offer) {
  Nonce found{};
  const iovec local{found.data(), found.size()};
  const iovec remote{reinterpret_cast<void*>(offer.probe_address), found.size()};
  const ssize_t got = ::process_vm_readv(offer.process.pid, &local, 1, &remote, 1, 0);
  if (got < 0) {
    const int err = errno;
    unavailable(explain("process_vm_readv", err, offer.process.pid));
  }
  if (got != static_cast<ssize_t>(found.size()) || found != offer.probe_nonce) {
    unavailable(join("process ", offer.process.pid,
                     " is not the one that the handshake was made with: its memory does not hold "
                     "the agreed nonce; connect again"));
  }
}

}  // namespace

std::string explain(const char* call, int err, pid_t pid) {
  return process::explain(call, err, pid,
                          "a seccomp profile that allows process_vm_readv and process_vm_writev");
}

Offer make_offer() {
  const Nonce& nonce = own_nonce();
  return {process::identity("cma"), reinterpret_cast<std::uint64_t>(nonce.data()), nonce};
}

UniqueFd check(const Offer& offer) {
  UniqueFd process = process::find_process(offer.process, "cma");
  probe(offer);
  return process;
}

}  // namespace rdma_kv::transport::cma
