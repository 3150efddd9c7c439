// What the two FAKES of this folder share: the log of calls that tests read, and the knobs.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace fake {

// Addresses of the made-up GPUs; no mapping of a process lies there.
inline constexpr std::uint64_t kGpuStart = 0x100000000000;
inline constexpr std::uint64_t kGpuEnd = 0x200000000000;

// Read anew at each call, so that a test may change them.
inline std::string knob(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

inline std::uint64_t number(const char* name, std::uint64_t otherwise) {
  const std::string value = knob(name, "");
  return value.empty() ? otherwise : std::stoull(value, nullptr, 0);
}

// One line of JSON: {"call": ..., "name": value, ...}.
class Call {
 public:
  explicit Call(const char* name) : line_(std::string("{\"call\": \"") + name + "\"") {}
  Call& with(const char* name, std::uint64_t value) {
    line_ += std::string(", \"") + name + "\": " + std::to_string(value);
    return *this;
  }
  ~Call() {
    const std::string path = knob("FAKE_CALLS", "");
    if (path.empty()) return;
    line_ += "}\n";
    const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ::write(file, line_.data(), line_.size()) < 0) std::abort();
    ::close(file);
  }

 private:
  std::string line_;
};

}  // namespace fake
