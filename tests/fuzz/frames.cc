#include "frames.h"

#include <algorithm>

namespace fuzz {
namespace {

std::vector<std::uint8_t> write(Input& input, const Shape& shape) {
  const std::uint64_t transfer = input.u8();
  std::vector<std::uint8_t> body;
  put(body, input.u8(), 4);  // tag
  const std::uint8_t layers = input.u8();
  put(body, layers % 4, 4);
  put(body, layers / 4 % 8, 4);
  const std::uint8_t parts = input.u8();
  const std::uint8_t runs = input.u8();
  const std::uint64_t count = runs == 255 ? shape.decode_blocks : runs % 32;
  put(body, count, 4);
  put(body, parts % 8, 2);
  put(body, parts / 8 % 8, 2);
  put(body, 0, 4);
  for (std::uint64_t run = 0; run < count; ++run) {
    // All blocks, each a run of its own, last block first; or what the input says.
    put(body, runs == 255 ? count - 1 - run : input.u16(), 4);
    put(body, runs == 255 ? 1 : input.u8(), 4);
  }
  return frame(3, transfer, body);
}

std::vector<std::uint8_t> data(Input& input, std::uint64_t transfer, std::size_t bytes) {
  std::vector<std::uint8_t> body(bytes);
  std::uint8_t value = input.u8();
  for (std::uint8_t& byte : body) byte = value = static_cast<std::uint8_t>(value * 5 + 1);
  return frame(4, transfer, body);
}

std::vector<std::uint8_t> notice(std::uint64_t transfer, std::uint32_t tag) {
  std::vector<std::uint8_t> body;
  put(body, tag, 4);
  return frame(5, transfer, body);
}

}  // namespace

std::vector<std::uint8_t> say(Say what, Input& input, const Shape& shape,
                              const StreamModel& stream) {
  switch (what) {
    case Say::kWrite:
      return write(input, shape);
    case Say::kData:
      return data(input, stream.transfer(), input.u16());
    case Say::kRest:
      return data(input, stream.transfer(), std::min<std::size_t>(stream.left(), 1 << 20));
    case Say::kNotice:
      return notice(input.u8(), input.u8());
    case Say::kNotices: {
      const auto one = notice(input.u8(), 1);
      std::vector<std::uint8_t> all;
      for (std::size_t left = std::size_t{input.u8()} * 8; left > 0; --left) {
        all.insert(all.end(), one.begin(), one.end());
      }
      return all;
    }
    case Say::kAbort:
      return frame(6, input.u8(), {});
    case Say::kAbortThis:
      return frame(6, stream.transfer(), {});
    case Say::kEnd:
      return frame(8, 0, {});
    case Say::kRaw:
    case Say::kCount:
      break;
  }
  const auto bytes = input.raw(std::size_t{input.u8()} + 1);
  return {bytes.begin(), bytes.end()};
}

}  // namespace fuzz
