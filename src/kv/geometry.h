// The shape of one side's KV cache: how many layers and blocks, and what a block holds.
// Says nothing of addresses; that is Layout.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rdma_kv::kv {

enum class TensorKind : std::uint8_t { kKey = 0, kValue = 1, kKeyScale = 2, kValueScale = 3 };
inline constexpr int kMostTensors = 4;

std::string_view name_of(TensorKind kind) noexcept;

// One tensor of every layer. Blocks start `stride_bytes` apart and hold `block_bytes` of payload.
struct TensorSpec {
  TensorKind kind;
  std::uint64_t block_bytes;
  std::uint64_t stride_bytes;
  bool operator==(const TensorSpec&) const = default;
};

struct Geometry {
  std::uint32_t layers = 0;
  std::uint64_t block_count = 0;
  std::vector<TensorSpec> tensors;  // 1..4, in the order of TensorKind
  std::string dtype;                // a tag that both sides must share; "" agrees with everything
  std::uint32_t tp_size = 1;        // 0: not declared, takes the peer's word
  std::uint32_t tp_rank = 0;

  // Throws Error(kValue) naming the first number that makes no sense.
  void check() const;
  bool operator==(const Geometry&) const = default;
};

// Bounds on what any side may declare; what comes from the network is held to them too.
inline constexpr std::uint32_t kMostLayers = 4096;
inline constexpr std::uint64_t kMostBlocks = std::uint64_t{1} << 31;
inline constexpr std::uint64_t kMostBlockBytes = std::uint64_t{1} << 32;
inline constexpr std::uint32_t kMostTpSize = 4096;

}  // namespace rdma_kv::kv
