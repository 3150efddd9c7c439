// Log lines of the core. The core never calls into Python: lines wait in a bounded queue, and the
// Python side drains it into logging.getLogger("rdma_kv") when the descriptor says so.
#pragma once

#include <string>
#include <vector>

namespace rdma_kv {

enum class LogLevel { kDebug = 10, kInfo = 20, kWarning = 30, kError = 40 };

struct LogLine {
  LogLevel level;
  std::string text;
};

// Queues one line. Safe from any thread; drops the line (and counts it) when 1024 are waiting.
// Not for the path of a block: it locks and allocates.
void log(LogLevel level, std::string text) noexcept;

// All waiting lines, oldest first; after a loss the first one says how many were dropped.
std::vector<LogLine> drain_log();

// Readable while lines wait.
int log_fd();

}  // namespace rdma_kv
