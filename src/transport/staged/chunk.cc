#include "transport/staged/chunk.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "transport/staged/limits.h"

namespace rdma_kv::transport::staged {
namespace {

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t step) noexcept {
  return (value + step - 1) / step * step;
}

// Of a slot that holds one block of one layer.
std::uint64_t least_slot_bytes(const kv::Mapping& mapping) noexcept {
  return round_up(payload_at(1) + pack(mapping, 1).layer_bytes, kGranuleBytes);
}

void put(std::uint8_t* out, std::uint64_t value, std::size_t bytes) noexcept {
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

std::uint64_t get(const std::uint8_t* in, std::size_t bytes) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{in[i]} << (8 * i);
  return value;
}

std::uint32_t get_u32(const std::uint8_t* in) noexcept {
  return static_cast<std::uint32_t>(get(in, 4));
}

}  // namespace

std::uint32_t RingShape::granules_per_slot() const noexcept {
  return static_cast<std::uint32_t>(slot_bytes / kGranuleBytes);
}

RingShape shape_for(const kv::Mapping& mapping) {
  const std::uint64_t least = least_slot_bytes(mapping);
  if (least > kMostSlotBytes) {
    throw Error(Errc::kUnavailable,
                join("a block of one layer has ", mapping.bytes_per_layer(),
                     " bytes, and staging holds at most ", kMostSlotBytes >> 20, " MiB of it"));
  }
  RingShape shape;
  shape.slot_bytes = std::max(least, kUsualSlotBytes);
  shape.slots = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(kUsualRingBytes / shape.slot_bytes, kLeastSlots, kUsualSlots));
  return shape;
}

void check_shape(const RingShape& shape, const kv::Mapping& mapping) {
  const bool is_sound =
      shape.slots >= 1 && shape.slots <= kMostSlots && shape.slot_bytes <= kMostSlotBytes &&
      shape.slot_bytes >= least_slot_bytes(mapping) && shape.slot_bytes % kGranuleBytes == 0 &&
      shape.bytes() <= kMostSlotBytes * kLeastSlots;
  if (is_sound) return;
  throw Error(Errc::kHandshake,
              join("decode offered ", shape.slots, " slots of ", shape.slot_bytes,
                   " bytes to stage blocks through; do both sides run the same version?"));
}

kv::Layout layout_of(const RingShape& shape, std::uint64_t address) {
  kv::Geometry geometry;
  geometry.layers = 1;
  geometry.block_count = shape.bytes() / kGranuleBytes;
  geometry.tensors = {{kv::TensorKind::kKey, kGranuleBytes, kGranuleBytes}};
  return {std::move(geometry), {address}, {kv::kHostDevice}};
}

std::uint64_t payload_at(std::uint64_t runs) noexcept {
  return round_up(kChunkHeadBytes + runs * kChunkRunBytes, kPayloadAlignment);
}

Packing pack(const kv::Mapping& mapping, std::uint64_t blocks) noexcept {
  Packing packing;
  for (std::uint32_t t = 0; t < mapping.tensors(); ++t) {
    packing.tensor_at[t] = packing.layer_bytes;
    packing.layer_bytes += round_up(blocks * mapping.walk(t).bytes, kTensorAlignment);
  }
  return packing;
}

void encode_chunk(const ChunkHead& head, std::span<const kv::Run> runs, std::uint8_t* slot) {
  put(slot, head.serial, 8);
  put(slot + 8, head.tag, 4);
  put(slot + 12, head.layers.first, 4);
  put(slot + 16, head.layers.count, 4);
  put(slot + 20, runs.size(), 4);
  put(slot + 24, 0, 8);
  std::uint8_t* at = slot + kChunkHeadBytes;
  for (const kv::Run& run : runs) {
    put(at, run.dst_block, 4);
    put(at + 4, run.count, 4);
    at += kChunkRunBytes;
  }
}

bool decode_chunk(const std::uint8_t* slot, std::uint64_t slot_bytes, const kv::Mapping& mapping,
                  kv::Plan& plan, Chunk& out) {
  std::array<std::uint8_t, kChunkHeadBytes> head;
  std::memcpy(head.data(), slot, head.size());
  out.head.serial = get(head.data(), 8);
  out.head.tag = get_u32(head.data() + 8);
  out.head.layers = {get_u32(head.data() + 12), get_u32(head.data() + 16)};
  out.head.run_count = get_u32(head.data() + 20);
  if (get(head.data() + 24, 8) != 0 || out.head.run_count == 0 || out.head.layers.count == 0) {
    return false;
  }
  out.payload_at = payload_at(out.head.run_count);
  if (out.payload_at >= slot_bytes) return false;
  const std::uint64_t room = slot_bytes - out.payload_at;
  out.runs.resize(out.head.run_count);
  std::array<std::uint8_t, kChunkRunBytes> words;
  const std::uint8_t* at = slot + kChunkHeadBytes;
  for (kv::Run& run : out.runs) {
    std::memcpy(words.data(), at, words.size());
    run = {0, get_u32(words.data()), get_u32(words.data() + 4)};
    at += kChunkRunBytes;
  }
  if (!plan.assign_received(mapping, out.runs, out.head.layers)) return false;
  out.blocks = plan.blocks();
  // Each block has a byte at least, so that nothing below can overflow.
  if (out.blocks > room || out.blocks * mapping.bytes_per_layer() > room) return false;
  out.packing = pack(mapping, out.blocks);
  return out.packing.layer_bytes * out.head.layers.count <= room;
}

}  // namespace rdma_kv::transport::staged
