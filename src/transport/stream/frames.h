// The frames that travel over streams between a sender (prefill) and a receiver (decode).
//
// All integers are little-endian. Every frame is a header of 16 bytes and a body:
//
//   header = u8 type, u8 flags = 0, u16 reserved = 0, u32 body_bytes, u64 transfer
//
//   type         from      transfer  body
//    1 HELLO     sender    0         "RKVS", u16 version = 1, u16 stream_index, u16 stream_count,
//                                    u16 0, u64 link_id, 16 bytes token, u64 receiver_epoch
//    2 WELCOME   receiver  0         u64 receiver_epoch
//    3 WRITE     sender    id        u32 tag, u32 first_layer, u32 layer_count, u32 run_count,
//                                    u16 part, u16 parts, u32 0,
//                                    run_count times { u32 dst_block, u32 count }
//    4 DATA      sender    id        1 byte to 1 MiB of payload
//    5 NOTICE    sender    id        u32 tag
//    6 ABORT     sender    id        nothing
//    7 ACK       receiver  id        u32 status: 0 applied, 1 aborted
//    8 END       sender    0         nothing
//    9 ENDED     receiver  0         nothing
//   10 REFUSED   receiver  0         u16 length, `length` bytes of UTF-8
//
// Opening. The sender's first frame on each stream is HELLO, with the link id and the token that
// the handshake gave it; receiver_epoch is the receiver's as the sender knows it. Each index
// 0..stream_count-1 is let in once. The answer is WELCOME, or REFUSED and the end of the stream; a
// first frame that is no HELLO ends the stream without an answer, and so do 5 s without a whole
// one. The sender may not send anything else before the WELCOME.
//
// Writing. WRITE names the destination of one part of a write: runs of neighbouring blocks, in all
// layers first_layer .. first_layer+layer_count-1. The payload follows in DATA frames on the same
// stream, in this order: layer, then tensor (in the order of the geometry), then run, then block;
// of each block the bytes of the slice that both sides computed from their geometries. The length
// is thus known to both, and the part is over with its last byte. A part without runs has no DATA.
// Between a WRITE and its last DATA only ABORT may come. At most 1 << 20 runs, and no block twice.
//
// A write over several streams is split by runs into `parts` parts, one per stream, with the same
// transfer id and tag; part is 0..parts-1 and each comes once. When the last part has been applied
// the receiver delivers the notice (tag 0: none) and then sends one ACK (applied), on the stream
// whose part was the last. At most 256 writes may be half arrived on one link.
//
// NOTICE delivers the notice for bytes that travelled another way; it is answered by ACK (applied).
//
// Aborting. ABORT drops the write `transfer`: nothing more of it comes on this stream. The sender
// sends it on every stream on which it has sent a part of that write, and only while not all parts
// were sent whole. Each ABORT is answered by one ACK (aborted) on its own stream; after the last of
// these nothing of the write can land, and its notice is never delivered.
//
// Ending. After END the receiver makes sure that nothing of the link can land, answers ENDED and
// closes all streams of the link. A stream that closes, at either side and at any point, ends the
// link too. The receiver shuts a stream down only when nothing of the link can land any more.
//
// Anything else (unknown type, a set flag, a body of the wrong size, a block or layer out of range,
// DATA without WRITE) ends the link, and only that link.
//
// Example: blocks 7, 8 and 2 of layer 0, tag 9, transfer 1, one stream, 24 bytes of payload:
//
//   03 00 0000 28000000 0100000000000000                        WRITE, 40 bytes of body
//      09000000 00000000 01000000 02000000 0000 0100 00000000   tag, layers, runs, part 0 of 1
//      07000000 02000000  02000000 01000000                     7 and 8, then 2
//   04 00 0000 18000000 0100000000000000                        DATA, 24 bytes of body
//      ... block 7, block 8, block 2
//   07 00 0000 04000000 0100000000000000  00000000              the answer: ACK, applied
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/plan.h"
#include "transport/remote_end.h"

namespace rdma_kv::transport::stream {

inline constexpr std::uint16_t kWireVersion = 1;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kHelloBytes = 44;
inline constexpr std::size_t kWelcomeBytes = 8;
inline constexpr std::size_t kWriteHeadBytes = 24;
inline constexpr std::size_t kRunBytes = 8;
inline constexpr std::size_t kWordBytes = 4;  // body of NOTICE and ACK
inline constexpr std::uint32_t kMostRuns = std::uint32_t{1} << 20;
inline constexpr std::uint32_t kMostDataBytes = std::uint32_t{1} << 20;
inline constexpr std::uint16_t kMostStreams = 64;
inline constexpr std::size_t kMostHalfArrived = 256;
inline constexpr std::size_t kMostReasonBytes = 512;

enum class FrameType : std::uint8_t {
  kHello = 1,
  kWelcome = 2,
  kWrite = 3,
  kData = 4,
  kNotice = 5,
  kAbort = 6,
  kAck = 7,
  kEnd = 8,
  kEnded = 9,
  kRefused = 10,
};

enum class AckStatus : std::uint32_t { kApplied = 0, kAborted = 1 };

struct FrameHeader {
  FrameType type;
  std::uint32_t body_bytes;
  std::uint64_t transfer;
};

struct Hello {
  std::uint16_t version = kWireVersion;
  std::uint16_t stream_index = 0;
  std::uint16_t stream_count = 0;
  std::uint64_t link_id = 0;
  Token token{};
  std::uint64_t receiver_epoch = 0;
};

struct WriteHead {
  std::uint32_t tag = 0;
  kv::LayerRange layers{0, 0};
  std::uint32_t run_count = 0;
  std::uint16_t part = 0;
  std::uint16_t parts = 1;
};

using Bytes = std::span<const std::uint8_t>;

// A whole frame that is not payload: at most a HELLO.
class SmallFrame {
 public:
  SmallFrame(FrameType type, std::uint64_t transfer) noexcept;
  SmallFrame& u16(std::uint16_t value) noexcept;
  SmallFrame& u32(std::uint32_t value) noexcept;
  SmallFrame& u64(std::uint64_t value) noexcept;
  SmallFrame& raw(Bytes bytes) noexcept;
  Bytes bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  void put(std::uint64_t value, std::size_t bytes) noexcept;

  std::array<std::uint8_t, kHeaderBytes + kHelloBytes> bytes_{};
  std::size_t size_ = kHeaderBytes;
};

// Encoders cannot fail. The bytes written are the whole frame unless the name says otherwise.
SmallFrame encode_hello(const Hello& hello) noexcept;
SmallFrame encode_welcome(std::uint64_t epoch) noexcept;
SmallFrame encode_notice(std::uint64_t transfer, std::uint32_t tag) noexcept;
SmallFrame encode_ack(std::uint64_t transfer, AckStatus status) noexcept;
SmallFrame encode_plain(FrameType type, std::uint64_t transfer) noexcept;  // ABORT, END, ENDED
std::vector<std::uint8_t> encode_refused(std::string_view why);            // cut when too long
void encode_data_header(std::uint64_t transfer, std::uint32_t bytes, std::uint8_t* out) noexcept;
// Replaces what is in `out`, whose memory is reused.
void encode_write(std::uint64_t transfer, const WriteHead& head, std::span<const kv::Run> runs,
                  std::vector<std::uint8_t>& out);

// Decoders read no byte beyond `bytes`; empty means nonsense, which ends the link.
// The header is checked whole: the type is known, and its body has a size that this type may have.
std::optional<FrameHeader> decode_header(Bytes bytes) noexcept;  // kHeaderBytes
bool has_hello_magic(Bytes body) noexcept;
std::optional<Hello> decode_hello(Bytes body) noexcept;  // any version, but the magic
std::optional<std::uint64_t> decode_welcome(Bytes body) noexcept;
std::optional<WriteHead> decode_write_head(Bytes body) noexcept;  // the first kWriteHeadBytes
bool decode_runs(Bytes body, std::span<kv::Run> out) noexcept;    // after the head
std::optional<std::uint32_t> decode_word(Bytes body) noexcept;    // NOTICE, ACK
std::optional<std::string> decode_refused(Bytes body);            // control characters replaced

const char* name_of(FrameType type) noexcept;

}  // namespace rdma_kv::transport::stream
