// What a sender may say: whole frames whose numbers an input chooses, or bytes as they are.
#pragma once

#include <cstdint>
#include <vector>

#include "input.h"
#include "model.h"

namespace fuzz {

// The kinds of things that an input lets a sender say; the number is the input's byte, modulo.
enum class Say : std::uint8_t {
  kRaw,
  kWrite,
  kData,  // of any length
  kRest,  // DATA, as much as the part still wants
  kNotice,
  kNotices,  // many
  kAbort,
  kAbortThis,  // the part under way
  kEnd,
  kCount,
};

// The bytes that the input says next on this stream.
std::vector<std::uint8_t> say(Say what, Input& input, const Shape& shape,
                              const StreamModel& stream);

}  // namespace fuzz
