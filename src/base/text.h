// Messages from parts, without <iostream>: no locale gets into a number, and nothing depends on
// how the C++ library of the host process set its streams up.
#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>

namespace rdma_kv {

// A number to be written as 1f rather than 31.
template <std::integral Number>
struct Hex {
  Number number;
};
template <std::integral Number>
Hex(Number) -> Hex<Number>;

namespace detail {

inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, char character) { out += character; }

template <class Number>
void append_number(std::string& out, Number number, auto... format) {
  char buffer[64];  // enough for any integer and for six significant digits
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, format...).ptr;
  out.append(buffer, end);
}

template <std::integral Number>
void append(std::string& out, Number number) {
  append_number(out,
                static_cast<std::conditional_t<std::same_as<Number, bool>, int, Number>>(number));
}
inline void append(std::string& out, double number) {
  append_number(out, number, std::chars_format::general, 6);
}
template <std::integral Number>
void append(std::string& out, Hex<Number> hex) {
  append_number(out, hex.number, 16);
}

}  // namespace detail

// "a", 1, "b" -> "a1b": messages are built where they are thrown, in one line.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::string out;
  (detail::append(out, parts), ...);
  return out;
}

}  // namespace rdma_kv
