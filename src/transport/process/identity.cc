#include "transport/process/identity.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/file.h"
#include "transport/process/ptracer.h"

namespace rdma_kv::transport::process {
namespace {

[[noreturn]] void unavailable(const char* transport, const std::string& why) {
  throw Error(Errc::kUnavailable, join(transport, ": ", why));
}

std::string read_boot_id(const char* transport) {
  constexpr const char* kPath = "/proc/sys/kernel/random/boot_id";
  if (auto id = first_line_of(kPath)) return *id;
  unavailable(transport, join("cannot read ", kPath, "; is /proc mounted?"));
}

std::uint64_t read_pid_namespace(const char* transport) {
  constexpr const char* kPath = "/proc/self/ns/pid";
  struct stat status{};
  if (::stat(kPath, &status) == 0) return status.st_ino;
  const int err = errno;
  unavailable(transport, join("stat of ", kPath, ": ", reason(err), "; is /proc mounted?"));
}

constexpr const char* kDescriptors = "a seccomp profile that allows pidfd_open and pidfd_getfd";

}  // namespace

std::string explain(const char* call, int err, pid_t pid, const char* permission) {
  const std::string what = join(call, ": ", reason(err), ", of process ", pid, "; ");
  switch (err) {
    case EPERM:
    case ENOSYS:
      return join(what,
                  "run both processes as the same user; where the kernel restricts ptrace, set "
                  "kernel.yama.ptrace_scope=0 (here it is ",
                  ptrace_scope_text(),
                  ") or grant CAP_SYS_PTRACE; in a container use --cap-add=SYS_PTRACE or ",
                  permission);
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

Identity identity(const char* transport) {
  return {::getpid(), read_boot_id(transport), read_pid_namespace(transport)};
}

UniqueFd open_process(pid_t pid) noexcept {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

UniqueFd find_process(const Identity& claimed, const char* transport) {
  if (claimed.boot_id != read_boot_id(transport)) {
    unavailable(transport, "the peer runs on another host");
  }
  const std::uint64_t own = read_pid_namespace(transport);
  if (claimed.pid_namespace != own) {
    unavailable(transport, join("the peer runs in another pid namespace (", claimed.pid_namespace,
                                ", here ", own,
                                "); start both containers with --pid=host or one with "
                                "--pid=container:<the other>"));
  }
  if (claimed.pid <= 0) unavailable(transport, join("pid ", claimed.pid, " cannot be a peer's"));
  UniqueFd process = open_process(claimed.pid);
  if (!process) {
    const int err = errno;
    unavailable(transport, explain("pidfd_open", err, claimed.pid, kDescriptors));
  }
  return process;
}

UniqueFd take_descriptor(const UniqueFd& process, pid_t pid, int number, const char* transport) {
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438  // <asm-generic/unistd.h>, since Linux 5.6
#endif
  UniqueFd taken(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
  if (!taken) {
    const int err = errno;
    unavailable(transport, explain("pidfd_getfd", err, pid, kDescriptors));
  }
  return taken;
}

}  // namespace rdma_kv::transport::process
