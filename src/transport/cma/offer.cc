#include "transport/cma/offer.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/file.h"
#include "transport/cma/ptracer.h"

namespace rdma_kv::transport::cma {
namespace {

[[noreturn]] void unavailable(const std::string& why) {
  throw Error(Errc::kUnavailable, "cma: " + why);
}

std::string read_boot_id() {
  constexpr const char* kPath = "/proc/sys/kernel/random/boot_id";
  if (auto id = first_line_of(kPath)) return *id;
  unavailable(join("cannot read ", kPath, "; is /proc mounted?"));
}

std::uint64_t read_pid_namespace() {
  constexpr const char* kPath = "/proc/self/ns/pid";
  struct stat status{};
  if (::stat(kPath, &status) == 0) return status.st_ino;
  const int err = errno;
  unavailable(join("stat of ", kPath, ": ", reason(err), "; is /proc mounted?"));
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
  const ssize_t got = ::process_vm_readv(offer.pid, &local, 1, &remote, 1, 0);
  if (got < 0) {
    const int err = errno;
    unavailable(explain("process_vm_readv", err, offer.pid));
  }
  if (got != static_cast<ssize_t>(found.size()) || found != offer.probe_nonce) {
    unavailable(join("process ", offer.pid,
                     " is not the one that the handshake was made with: its memory does not hold "
                     "the agreed nonce; connect again"));
  }
}

}  // namespace

std::string explain(const char* call, int err, pid_t pid) {
  const std::string what = join(call, ": ", reason(err), ", of process ", pid, "; ");
  switch (err) {
    case EPERM:
    case ENOSYS:
      return join(what,
                  "run both processes as the same user; where the kernel restricts ptrace, set "
                  "kernel.yama.ptrace_scope=0 (here it is ",
                  ptrace_scope_text(),
                  ") or grant CAP_SYS_PTRACE; in a container use --cap-add=SYS_PTRACE or a seccomp "
                  "profile that allows process_vm_readv and process_vm_writev");
    case ESRCH:
      return what + "it has ended; connect again once it is back";
    case EFAULT:
      return what +
             "an address is not mapped there (or not here): were the tensors of a KV cache "
             "freed while it was in use, or was the process replaced?";
    default:
      return what + "use another transport";
  }
}

Offer make_offer() {
  const Nonce& nonce = own_nonce();
  return {::getpid(), read_boot_id(), read_pid_namespace(),
          reinterpret_cast<std::uint64_t>(nonce.data()), nonce};
}

UniqueFd open_process(pid_t pid) noexcept {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

UniqueFd check(const Offer& offer) {
  if (offer.boot_id != read_boot_id()) unavailable("the peer runs on another host");
  if (const std::uint64_t own = read_pid_namespace(); offer.pid_namespace != own) {
    unavailable(join("the peer runs in another pid namespace (", offer.pid_namespace, ", here ",
                     own,
                     "); start both containers with --pid=host or one with "
                     "--pid=container:<the other>"));
  }
  if (offer.pid <= 0) unavailable(join("pid ", offer.pid, " cannot be a peer's"));
  UniqueFd process = open_process(offer.pid);
  if (!process) {
    const int err = errno;
    unavailable(explain("pidfd_open", err, offer.pid));
  }
  probe(offer);
  return process;
}

}  // namespace rdma_kv::transport::cma
