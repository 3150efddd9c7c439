// What every function of the driver does first: is it initialised, and is a failure asked for?
#pragma once

#include <mutex>

#include "fake_cuda/declarations.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace fake {

// Guards all state but what a stream has of its own. Never destroyed: threads outlive main().
std::mutex& world();

// Not kSuccess: what the function has to answer at once. Counts the call.
Status enter(const char* function);

// While one lives, calls of this thread are refused: it runs a host function of a stream.
class InsideHostFunction {
 public:
  InsideHostFunction();
  ~InsideHostFunction();
  InsideHostFunction(const InsideHostFunction&) = delete;
  InsideHostFunction& operator=(const InsideHostFunction&) = delete;
};

void set_initialized();
int number_from_environment(const char* name, int otherwise);

}  // namespace fake

#define ENTER(function)                                                       \
  if (const ::fake::Status failed_ = ::fake::enter(function)) return failed_; \
  static_assert(true)
