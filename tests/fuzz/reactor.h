// The core's Reactor without its thread: an input says when handlers run.
#pragma once

#include <functional>

namespace fuzz {

// Calls the handlers of sockets that have events, until none has; `after` follows each call, with
// the descriptor. A handler that is called again and again without doing anything is a bug.
void run_handlers(const std::function<void(int fd)>& after = {});
void run_periodic_tasks();
void reset_reactor();

}  // namespace fuzz
