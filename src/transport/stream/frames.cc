#include "transport/stream/frames.h"

#include <algorithm>
#include <cstring>

namespace rdma_kv::transport::stream {
namespace {

constexpr std::array<std::uint8_t, 4> kMagic = {'R', 'K', 'V', 'S'};

void put(std::uint8_t* out, std::uint64_t value, std::size_t bytes) noexcept {
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

std::uint64_t get(const std::uint8_t* in, std::size_t bytes) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{in[i]} << (8 * i);
  return value;
}

std::uint16_t get_u16(const std::uint8_t* in) noexcept {
  return static_cast<std::uint16_t>(get(in, 2));
}

std::uint32_t get_u32(const std::uint8_t* in) noexcept {
  return static_cast<std::uint32_t>(get(in, 4));
}

void put_header(std::uint8_t* out, FrameType type, std::uint64_t body,
                std::uint64_t transfer) noexcept {
  put(out, static_cast<std::uint8_t>(type), 4);  // and flags and reserved, both 0
  put(out + 4, body, 4);
  put(out + 8, transfer, 8);
}

bool is_body_size_possible(FrameType type, std::uint32_t bytes) noexcept {
  switch (type) {
    case FrameType::kHello:
      return bytes == kHelloBytes;
    case FrameType::kWelcome:
      return bytes == kWelcomeBytes;
    case FrameType::kWrite:
      return bytes >= kWriteHeadBytes && bytes <= kWriteHeadBytes + kRunBytes * kMostRuns &&
             (bytes - kWriteHeadBytes) % kRunBytes == 0;
    case FrameType::kData:
      return bytes >= 1 && bytes <= kMostDataBytes;
    case FrameType::kNotice:
    case FrameType::kAck:
      return bytes == kWordBytes;
    case FrameType::kAbort:
    case FrameType::kEnd:
    case FrameType::kEnded:
      return bytes == 0;
    case FrameType::kRefused:
      return bytes >= 2 && bytes <= 2 + kMostReasonBytes;
  }
  return false;  // unknown type
}

}  // namespace

SmallFrame::SmallFrame(FrameType type, std::uint64_t transfer) noexcept {
  put_header(bytes_.data(), type, 0, transfer);
}

void SmallFrame::put(std::uint64_t value, std::size_t bytes) noexcept {
  stream::put(bytes_.data() + size_, value, bytes);
  size_ += bytes;
  stream::put(bytes_.data() + 4, size_ - kHeaderBytes, 4);
}

SmallFrame& SmallFrame::u16(std::uint16_t value) noexcept {
  put(value, 2);
  return *this;
}

SmallFrame& SmallFrame::u32(std::uint32_t value) noexcept {
  put(value, 4);
  return *this;
}

SmallFrame& SmallFrame::u64(std::uint64_t value) noexcept {
  put(value, 8);
  return *this;
}

SmallFrame& SmallFrame::raw(Bytes bytes) noexcept {
  for (const std::uint8_t byte : bytes) put(byte, 1);
  return *this;
}

SmallFrame encode_hello(const Hello& hello) noexcept {
  SmallFrame frame(FrameType::kHello, 0);
  frame.raw(kMagic).u16(hello.version).u16(hello.stream_index).u16(hello.stream_count).u16(0);
  frame.u64(hello.link_id).raw(hello.token).u64(hello.receiver_epoch);
  return frame;
}

SmallFrame encode_welcome(std::uint64_t epoch) noexcept {
  return SmallFrame(FrameType::kWelcome, 0).u64(epoch);
}

SmallFrame encode_notice(std::uint64_t transfer, std::uint32_t tag) noexcept {
  return SmallFrame(FrameType::kNotice, transfer).u32(tag);
}

SmallFrame encode_ack(std::uint64_t transfer, AckStatus status) noexcept {
  return SmallFrame(FrameType::kAck, transfer).u32(static_cast<std::uint32_t>(status));
}

SmallFrame encode_plain(FrameType type, std::uint64_t transfer) noexcept {
  return SmallFrame(type, transfer);
}

std::vector<std::uint8_t> encode_refused(std::string_view why) {
  why = why.substr(0, kMostReasonBytes);
  std::vector<std::uint8_t> out(kHeaderBytes + 2 + why.size());
  put_header(out.data(), FrameType::kRefused, 2 + why.size(), 0);
  put(out.data() + kHeaderBytes, why.size(), 2);
  std::copy(why.begin(), why.end(), out.begin() + kHeaderBytes + 2);
  return out;
}

void encode_data_header(std::uint64_t transfer, std::uint32_t bytes, std::uint8_t* out) noexcept {
  put_header(out, FrameType::kData, bytes, transfer);
}

void encode_write(std::uint64_t transfer, const WriteHead& head, std::span<const kv::Run> runs,
                  std::vector<std::uint8_t>& out) {
  const std::size_t body = kWriteHeadBytes + kRunBytes * runs.size();
  out.resize(kHeaderBytes + body);
  std::uint8_t* at = out.data();
  put_header(at, FrameType::kWrite, body, transfer);
  at += kHeaderBytes;
  put(at, head.tag, 4);
  put(at + 4, head.layers.first, 4);
  put(at + 8, head.layers.count, 4);
  put(at + 12, runs.size(), 4);
  put(at + 16, head.part, 2);
  put(at + 18, head.parts, 2);
  put(at + 20, 0, 4);
  at += kWriteHeadBytes;
  for (const kv::Run& run : runs) {
    put(at, run.dst_block, 4);
    put(at + 4, run.count, 4);
    at += kRunBytes;
  }
}

std::optional<FrameHeader> decode_header(Bytes bytes) noexcept {
  if (bytes.size() < kHeaderBytes || get(bytes.data() + 1, 3) != 0) return std::nullopt;
  const FrameHeader header{static_cast<FrameType>(bytes[0]), get_u32(bytes.data() + 4),
                           get(bytes.data() + 8, 8)};
  if (!is_body_size_possible(header.type, header.body_bytes)) return std::nullopt;
  return header;
}

bool has_hello_magic(Bytes body) noexcept {
  return body.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), body.begin());
}

std::optional<Hello> decode_hello(Bytes body) noexcept {
  if (body.size() != kHelloBytes || !has_hello_magic(body)) return std::nullopt;
  const std::uint8_t* at = body.data() + kMagic.size();
  Hello hello;
  hello.version = get_u16(at);
  hello.stream_index = get_u16(at + 2);
  hello.stream_count = get_u16(at + 4);
  hello.link_id = get(at + 8, 8);
  std::copy_n(at + 16, kTokenBytes, hello.token.begin());
  hello.receiver_epoch = get(at + 32, 8);
  return hello;
}

std::optional<std::uint64_t> decode_welcome(Bytes body) noexcept {
  if (body.size() != kWelcomeBytes) return std::nullopt;
  return get(body.data(), 8);
}

std::optional<WriteHead> decode_write_head(Bytes body) noexcept {
  if (body.size() < kWriteHeadBytes) return std::nullopt;
  const std::uint8_t* at = body.data();
  WriteHead head;
  head.tag = get_u32(at);
  head.layers = {get_u32(at + 4), get_u32(at + 8)};
  head.run_count = get_u32(at + 12);
  head.part = get_u16(at + 16);
  head.parts = get_u16(at + 18);
  const bool is_sane = head.run_count <= kMostRuns && head.parts >= 1 &&
                       head.parts <= kMostStreams && head.part < head.parts &&
                       get_u32(at + 20) == 0;
  if (!is_sane) return std::nullopt;
  return head;
}

bool decode_runs(Bytes body, std::span<kv::Run> out) noexcept {
  if (body.size() != out.size() * kRunBytes) return false;
  const std::uint8_t* at = body.data();
  for (kv::Run& run : out) {
    run = {0, get_u32(at), get_u32(at + 4)};
    at += kRunBytes;
  }
  return true;
}

std::optional<std::uint32_t> decode_word(Bytes body) noexcept {
  if (body.size() != kWordBytes) return std::nullopt;
  return get_u32(body.data());
}

std::optional<std::string> decode_refused(Bytes body) {
  if (body.size() < 2 || body.size() != std::size_t{2} + get_u16(body.data())) return std::nullopt;
  std::string why(body.begin() + 2, body.end());
  // It goes into messages and log lines: what a stranger sends must not move the cursor there, nor
  // (bytes above 0x7e) break a decoder of UTF-8 when it was cut.
  for (char& c : why) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return why;
}

const char* name_of(FrameType type) noexcept {
  switch (type) {
    case FrameType::kHello:
      return "HELLO";
    case FrameType::kWelcome:
      return "WELCOME";
    case FrameType::kWrite:
      return "WRITE";
    case FrameType::kData:
      return "DATA";
    case FrameType::kNotice:
      return "NOTICE";
    case FrameType::kAbort:
      return "ABORT";
    case FrameType::kAck:
      return "ACK";
    case FrameType::kEnd:
      return "END";
    case FrameType::kEnded:
      return "ENDED";
    case FrameType::kRefused:
      return "REFUSED";
  }
  return "unknown";
}

}  // namespace rdma_kv::transport::stream
