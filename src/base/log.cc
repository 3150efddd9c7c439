#include "base/log.h"

#include <mutex>
#include <utility>

#include "base/error.h"
#include "base/fd.h"

namespace rdma_kv {
namespace {

constexpr std::size_t kMostLines = 1024;

struct Queue {
  std::mutex mutex;
  std::vector<LogLine> lines;
  std::size_t dropped = 0;
  EventFd ready;
};

// Never destroyed: threads may still log while the process exits.
Queue& queue() {
  static Queue* const instance = new Queue;
  return *instance;
}

}  // namespace

void log(LogLevel level, std::string text) noexcept {
  try {
    Queue& q = queue();
    const std::lock_guard lock(q.mutex);
    if (q.lines.size() >= kMostLines) {
      ++q.dropped;
      return;
    }
    q.lines.push_back({level, std::move(text)});
    q.ready.signal();
  } catch (...) {  // out of memory: a lost log line must not become a lost transfer
  }
}

std::vector<LogLine> drain_log() {
  Queue& q = queue();
  const std::lock_guard lock(q.mutex);
  q.ready.drain();
  std::vector<LogLine> lines = std::exchange(q.lines, {});
  if (const std::size_t dropped = std::exchange(q.dropped, 0); dropped > 0) {
    lines.insert(lines.begin(),
                 {LogLevel::kWarning, join(dropped, " log lines of the core were dropped")});
  }
  return lines;
}

int log_fd() { return queue().ready.get(); }

}  // namespace rdma_kv
