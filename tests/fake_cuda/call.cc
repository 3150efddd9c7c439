#include "fake_cuda/call.h"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

namespace fake {
namespace {

struct Plan {
  int countdown = 0;  // to the call that fails; 0: none will
  bool is_for_ever = false;
  Status status = kSuccess;
};

struct Book {
  std::mutex mutex;
  std::map<std::string, Plan> plans;
  std::map<std::string, int> calls;
};

std::atomic<bool> is_initialized{false};
thread_local bool is_inside_host_function = false;

void plan(Book& book, const std::string& function, int nth, Status status) {
  book.plans[function] = {nth, nth == 0, status};
}

// RDMA_KV_FAKE_FAIL=function:nth:status,...
void read_environment(Book& book) {
  const char* const asked = std::getenv("RDMA_KV_FAKE_FAIL");
  std::istringstream entries(asked != nullptr ? asked : "");
  for (std::string entry; std::getline(entries, entry, ',');) {
    std::istringstream fields(entry);
    std::string function, nth, status;
    if (std::getline(fields, function, ':') && std::getline(fields, nth, ':') &&
        std::getline(fields, status)) {
      plan(book, function, std::stoi(nth), std::stoi(status));
    }
  }
}

Book& book() {
  static Book& made = *[] {
    auto* const fresh = new Book;
    read_environment(*fresh);
    return fresh;
  }();
  return made;
}

Status planned_failure(const char* function) {
  const std::lock_guard lock(book().mutex);
  ++book().calls[function];
  const auto found = book().plans.find(function);
  if (found == book().plans.end()) return kSuccess;
  Plan& plan = found->second;
  if (plan.is_for_ever) return plan.status;
  return plan.countdown > 0 && --plan.countdown == 0 ? plan.status : kSuccess;
}

}  // namespace

std::mutex& world() {
  static auto& mutex = *new std::mutex;
  return mutex;
}

void set_initialized() {
  // A forked child has none of the driver's threads: there the real one refuses all calls, too.
  if (!is_initialized.exchange(true)) {
    ::pthread_atfork(nullptr, nullptr, [] { is_initialized = false; });
  }
}

Status enter(const char* function) {
  if (!is_initialized) return kCuNotInitialized;
  if (is_inside_host_function) return kCuNotPermitted;
  return planned_failure(function);
}

InsideHostFunction::InsideHostFunction() { is_inside_host_function = true; }
InsideHostFunction::~InsideHostFunction() { is_inside_host_function = false; }

int number_from_environment(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::atoi(text) : otherwise;
}

}  // namespace fake

// From now on the nth call of a function answers `status`; nth 0: every call; status 0: none.
EXPORTED void rdma_kv_fake_fail(const char* function, int nth, int status) {
  const std::lock_guard lock(fake::book().mutex);
  fake::plan(fake::book(), function, status == 0 ? -1 : nth, status);
}

// How often a function was called.
EXPORTED int rdma_kv_fake_calls(const char* function) {
  const std::lock_guard lock(fake::book().mutex);
  return fake::book().calls[function];
}
