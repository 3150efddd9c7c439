#include "transport/process/ptracer.h"

#include <sys/prctl.h>

#include <cerrno>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace rdma_kv::transport::process {
namespace {

std::mutex g_mutex;
std::weak_ptr<PtracerGrant> g_held;  // guarded by g_mutex

}  // namespace

class PtracerGrant {
 public:
  explicit PtracerGrant(pid_t pid) noexcept : pid_(pid) {}
  ~PtracerGrant() {
    const std::lock_guard lock(g_mutex);
    // Unless the next one has been named already, between our last reference and this lock.
    if (g_held.expired()) (void)::prctl(PR_SET_PTRACER, 0, 0, 0, 0);
  }
  PtracerGrant(const PtracerGrant&) = delete;
  PtracerGrant& operator=(const PtracerGrant&) = delete;
  pid_t pid() const noexcept { return pid_; }

 private:
  const pid_t pid_;
};

std::string ptrace_scope_text() {
  return first_line_of("/proc/sys/kernel/yama/ptrace_scope").value_or("not there");
}

std::shared_ptr<PtracerGrant> grant_ptrace(pid_t pid) {
  if (pid <= 0 || ptrace_scope_text() != "1") return nullptr;
  std::shared_ptr<PtracerGrant> held;  // let go of after the lock: it takes it when it dies
  const std::lock_guard lock(g_mutex);
  held = g_held.lock();
  if (held) return held->pid() == pid ? held : nullptr;
  if (::prctl(PR_SET_PTRACER, static_cast<unsigned long>(pid), 0, 0, 0) != 0) {
    const int err = errno;
    log(LogLevel::kInfo, join("prctl(PR_SET_PTRACER, ", pid, "): ", reason(err),
                              "; that process will not be able to use cma"));
    return nullptr;
  }
  auto grant = std::make_shared<PtracerGrant>(pid);
  g_held = grant;
  return grant;
}

}  // namespace rdma_kv::transport::process
