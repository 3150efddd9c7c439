// An input read as a small program: every string of bytes is one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}

  bool is_empty() const { return bytes_.empty(); }
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::span<const std::uint8_t> raw(std::size_t most) {
    const std::size_t take = std::min(most, bytes_.size());
    const auto taken = bytes_.first(take);
    bytes_ = bytes_.subspan(take);
    return taken;
  }

 private:
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    std::size_t at = 0;
    for (const std::uint8_t byte : raw(bytes)) value |= std::uint64_t{byte} << 8 * at++;
    return value;
  }

  std::span<const std::uint8_t> bytes_;
};

// Says what does not hold, and stops.
#define MUST(claim)                                                                   \
  do {                                                                                \
    if (!(claim)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #claim); \
      std::abort();                                                                   \
    }                                                                                 \
  } while (false)

}  // namespace fuzz
