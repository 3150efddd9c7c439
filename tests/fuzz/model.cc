#include "model.h"

#include <algorithm>
#include <utility>

namespace fuzz {
namespace {

enum Type : unsigned {
  kWrite = 3,
  kData = 4,
  kNotice = 5,
  kAbort = 6,
  kAck = 7,
  kEnd = 8,
  kEnded = 9,
};

constexpr std::size_t kHeader = 16;
constexpr std::size_t kHead = 24;
constexpr std::size_t kMostHalf = 256;

// Only what a sender may send once it is welcome.
bool is_possible(unsigned type, std::uint64_t body) {
  switch (type) {
    case kWrite:
      return body >= kHead && (body - kHead) % 8 == 0 && (body - kHead) / 8 <= 1 << 20;
    case kData:
      return body >= 1 && body <= 1 << 20;
    case kNotice:
      return body == 4;
    case kAbort:
    case kEnd:
      return body == 0;
    default:
      return false;
  }
}

}  // namespace

void put(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

std::vector<std::uint8_t> frame(unsigned type, std::uint64_t transfer,
                                std::span<const std::uint8_t> body) {
  std::vector<std::uint8_t> out;
  out.reserve(kHeader + body.size());
  put(out, type, 4);
  put(out, body.size(), 4);
  put(out, transfer, 8);
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

StreamModel::StreamModel(const Shape& shape, std::vector<std::vector<std::uint8_t>>& memory)
    : shape_(shape), memory_(memory) {}

void StreamModel::deliver(std::span<const std::uint8_t> bytes) {
  waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
}

std::uint64_t StreamModel::number(std::size_t at, std::size_t bytes) const {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i)
    value |= std::uint64_t{waiting_[begin_ + at + i]} << 8 * i;
  return value;
}

StreamModel::Event StreamModel::step() {
  if (is_broken_) return Event::kNeedsMore;
  if (has_only_begun_) {
    has_only_begun_ = false;
    if (left_ == 0) {
      is_in_part_ = false;
      return Event::kApplied;
    }
  }
  while (frame_left_ > 0) {
    if (waiting() == 0) return Event::kNeedsMore;
    place();
    if (left_ > 0) continue;
    is_in_part_ = false;
    transfer_ = part_transfer_;
    tag_ = part_tag_;
    return Event::kApplied;
  }
  const Event event = read_header();
  is_broken_ = event == Event::kNonsense;
  // DATA is no event: its payload is taken at once.
  if (event == Event::kNeedsMore && frame_left_ > 0) return step();
  return event;
}

StreamModel::Event StreamModel::read_header() {
  if (waiting() < kHeader) return Event::kNeedsMore;
  const auto type = static_cast<unsigned>(number(0, 4));  // flags and reserved must be 0
  const std::uint64_t body = number(4, 4);
  const std::uint64_t transfer = number(8, 8);
  if (!is_possible(type, body)) return Event::kNonsense;
  if (is_in_part_ && (transfer != part_transfer_ || (type != kData && type != kAbort))) {
    return Event::kNonsense;
  }
  if (type == kWrite) return read_write();
  if (type == kData) {
    if (!is_in_part_ || body > left_) return Event::kNonsense;
    frame_left_ = body;
    drop(kHeader);
    return Event::kNeedsMore;
  }
  if (waiting() < kHeader + body) return Event::kNeedsMore;
  transfer_ = transfer;
  if (type == kNotice) tag_ = static_cast<std::uint32_t>(number(kHeader, 4));
  drop(kHeader + body);
  if (type == kNotice) return Event::kNotice;
  if (type == kEnd) return Event::kEnd;
  is_in_part_ = false;
  left_ = 0;
  return Event::kAbort;
}

StreamModel::Event StreamModel::read_write() {
  if (waiting() < kHeader + kHead) return Event::kNeedsMore;
  const std::uint64_t body = number(4, 4);
  const std::size_t at = kHeader;
  const std::uint64_t first_layer = number(at + 4, 4);
  const std::uint64_t layers = number(at + 8, 4);
  const std::uint64_t runs = number(at + 12, 4);
  const std::uint64_t part = number(at + 16, 2);
  const std::uint64_t parts = number(at + 18, 2);
  if (body != kHead + 8 * runs || number(at + 20, 4) != 0) return Event::kNonsense;
  if (parts < 1 || parts > 64 || part >= parts) return Event::kNonsense;
  if (runs > shape_.decode_blocks) return Event::kNonsense;
  if (waiting() < kHeader + body) return Event::kNeedsMore;
  std::set<std::uint64_t> blocks;
  for (std::uint64_t run = 0; run < runs; ++run) {
    const std::uint64_t first = number(at + kHead + 8 * run, 4);
    const std::uint64_t count = number(at + kHead + 8 * run + 4, 4);
    if (count == 0 || first + count > shape_.decode_blocks) return Event::kNonsense;
    for (std::uint64_t block = first; block < first + count; ++block) {
      if (!blocks.insert(block).second) return Event::kNonsense;
    }
  }
  if (first_layer + layers > shape_.layers) return Event::kNonsense;
  spans_.clear();
  for (std::uint64_t layer = first_layer; layer < first_layer + layers; ++layer) {
    for (std::size_t tensor = 0; tensor < shape_.tensors.size(); ++tensor) {
      const Shape::Tensor& spec = shape_.tensors[tensor];
      for (std::uint64_t run = 0; run < runs; ++run) {
        const std::uint64_t first = number(at + kHead + 8 * run, 4);
        const std::uint64_t count = number(at + kHead + 8 * run + 4, 4);
        for (std::uint64_t block = first; block < first + count; ++block) {
          spans_.push_back({layer * shape_.tensors.size() + tensor,
                            block * spec.decode_stride + spec.dst_offset, spec.bytes});
        }
      }
    }
  }
  allowed_.insert(allowed_.end(), spans_.begin(), spans_.end());
  span_ = in_span_ = 0;
  left_ = 0;
  for (const Span& span : spans_) left_ += span.bytes;
  transfer_ = part_transfer_ = number(8, 8);
  tag_ = part_tag_ = static_cast<std::uint32_t>(number(at, 4));
  part_ = static_cast<std::uint16_t>(part);
  parts_ = static_cast<std::uint16_t>(parts);
  is_in_part_ = has_only_begun_ = true;
  drop(kHeader + body);
  return Event::kBegun;
}

// As much as there is for the block under way.
void StreamModel::place() {
  const Span& span = spans_[span_];
  const std::size_t take = std::min<std::uint64_t>({waiting(), frame_left_, span.bytes - in_span_});
  for (std::size_t i = 0; i < take; ++i) {
    memory_[span.region].at(span.offset + in_span_ + i) = waiting_[begin_ + i];
  }
  drop(take);
  frame_left_ -= take;
  left_ -= take;
  in_span_ += take;
  if (in_span_ < span.bytes) return;
  in_span_ = 0;
  ++span_;
}

LinkModel::LinkModel(const Shape& shape, Memory memory, std::size_t streams)
    : memory_(std::move(memory)), answers_(streams) {
  for (std::size_t i = 0; i < streams; ++i) streams_.emplace_back(shape, memory_);
}

void LinkModel::acknowledge(std::size_t index, std::uint64_t transfer, std::uint32_t status) {
  std::vector<std::uint8_t> body;
  put(body, status, 4);
  const auto bytes = frame(kAck, transfer, body);
  answers_[index].insert(answers_[index].end(), bytes.begin(), bytes.end());
}

void LinkModel::serve(std::size_t index, const std::function<void()>& on_begun) {
  StreamModel& stream = streams_[index];
  while (!is_ended_) {
    switch (stream.step()) {
      case StreamModel::Event::kNeedsMore:
        return;
      case StreamModel::Event::kBegun:
        if (on_begun) on_begun();
        if (!begin(stream)) is_ended_ = was_nonsense_ = true;
        break;
      case StreamModel::Event::kApplied:
        apply(index);
        break;
      case StreamModel::Event::kAbort:
        half_.erase(stream.transfer());
        acknowledge(index, stream.transfer(), 1);
        break;
      case StreamModel::Event::kNotice:
        if (stream.tag() != 0) notices_.push_back(stream.tag());
        acknowledge(index, stream.transfer(), 0);
        break;
      case StreamModel::Event::kEnd: {
        const auto bytes = frame(kEnded, 0, {});
        answers_[index].insert(answers_[index].end(), bytes.begin(), bytes.end());
        is_ended_ = ended_in_order_ = true;
        break;
      }
      case StreamModel::Event::kNonsense:
        is_ended_ = was_nonsense_ = true;
        break;
    }
  }
}

bool LinkModel::begin(StreamModel& stream) {
  if (stream.parts() == 1) return true;
  if (stream.parts() > streams_.size()) return false;
  if (!half_.contains(stream.transfer())) {
    if (half_.size() == kMostHalf) return false;
    half_[stream.transfer()] = {stream.tag(), stream.parts(), {}, {}};
  }
  Half& half = half_.at(stream.transfer());
  if (half.tag != stream.tag() || half.parts != stream.parts()) return false;
  return half.begun.insert(stream.part()).second;
}

void LinkModel::apply(std::size_t index) {
  const StreamModel& stream = streams_[index];
  if (stream.parts() > 1) {
    const auto found = half_.find(stream.transfer());
    if (found == half_.end()) return;  // aborted on another stream
    Half& half = found->second;
    half.applied.insert(stream.part());
    if (half.applied.size() != half.parts || *half.applied.rbegin() >= half.parts) return;
    half_.erase(found);
  }
  applied_.push_back(stream.transfer());
  if (stream.tag() != 0) notices_.push_back(stream.tag());
  acknowledge(index, stream.transfer(), 0);
}

}  // namespace fuzz
