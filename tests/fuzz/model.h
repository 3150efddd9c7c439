// The receiver's half of the stream protocol, written a second time from the text of
// src/transport/stream/frames.h: slow, simple, and byte by byte where that is simplest.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "cache.h"

namespace fuzz {

struct Span {
  std::size_t region;
  std::size_t offset;
  std::size_t bytes;
};

// One stream of a link: what was delivered on it, and how far that can be understood.
class StreamModel {
 public:
  enum class Event { kNeedsMore, kBegun, kApplied, kAbort, kNotice, kEnd, kNonsense };

  StreamModel(const Shape& shape, std::vector<std::vector<std::uint8_t>>& memory);

  void deliver(std::span<const std::uint8_t> bytes);
  Event step();

  std::uint64_t transfer() const { return transfer_; }
  std::uint32_t tag() const { return tag_; }
  std::uint16_t part() const { return part_; }
  std::uint16_t parts() const { return parts_; }
  bool is_in_part() const { return is_in_part_; }
  std::uint64_t left() const { return left_; }  // payload of the part
  // Where accepted WRITEs on this stream allowed bytes to land.
  const std::vector<Span>& allowed() const { return allowed_; }

 private:
  Event read_header();
  Event read_write();
  void place();
  void drop(std::size_t bytes) { begin_ += bytes; }
  std::size_t waiting() const { return waiting_.size() - begin_; }
  std::uint64_t number(std::size_t at, std::size_t bytes) const;

  const Shape& shape_;
  std::vector<std::vector<std::uint8_t>>& memory_;
  std::vector<std::uint8_t> waiting_;  // what was not understood yet begins at begin_
  std::size_t begin_ = 0;
  std::vector<Span> allowed_;
  bool is_broken_ = false;

  bool is_in_part_ = false;
  bool has_only_begun_ = false;
  std::uint64_t part_transfer_ = 0, transfer_ = 0;
  std::uint32_t tag_ = 0, part_tag_ = 0;
  std::uint16_t part_ = 0, parts_ = 0;
  std::uint64_t left_ = 0, frame_left_ = 0;
  std::vector<Span> spans_;  // of the part, in the canonical order
  std::size_t span_ = 0, in_span_ = 0;
};

// A whole link: the streams, what they tell each other, and what the receiver answers.
class LinkModel {
 public:
  using Memory = std::vector<std::vector<std::uint8_t>>;  // by region

  LinkModel(const Shape& shape, Memory memory, std::size_t streams);

  // Understands all that was delivered on one stream; `on_begun` is called at each WRITE.
  void serve(std::size_t stream, const std::function<void()>& on_begun = {});
  void end() { is_ended_ = true; }

  StreamModel& stream(std::size_t index) { return streams_[index]; }
  std::size_t stream_count() const { return streams_.size(); }
  bool is_ended() const { return is_ended_; }
  bool ended_in_order() const { return ended_in_order_; }
  bool was_nonsense() const { return was_nonsense_; }
  const Memory& memory() const { return memory_; }
  const std::vector<std::uint32_t>& notices() const { return notices_; }
  const std::vector<std::uint8_t>& answers(std::size_t stream) const { return answers_[stream]; }
  const std::vector<std::uint64_t>& applied() const { return applied_; }

 private:
  struct Half {
    std::uint32_t tag;
    std::uint16_t parts;
    std::set<std::uint16_t> begun, applied;
  };

  bool begin(StreamModel& stream);
  void apply(std::size_t index);
  void acknowledge(std::size_t index, std::uint64_t transfer, std::uint32_t status);

  Memory memory_;
  std::vector<StreamModel> streams_;
  std::vector<std::vector<std::uint8_t>> answers_;
  std::map<std::uint64_t, Half> half_;
  std::vector<std::uint32_t> notices_;
  std::vector<std::uint64_t> applied_;  // transfers, as their last part came
  bool is_ended_ = false;
  bool ended_in_order_ = false;
  bool was_nonsense_ = false;
};

// Frames, for whoever plays a peer.
std::vector<std::uint8_t> frame(unsigned type, std::uint64_t transfer,
                                std::span<const std::uint8_t> body);
void put(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t bytes);

}  // namespace fuzz
