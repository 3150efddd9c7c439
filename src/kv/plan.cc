#include "kv/plan.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "base/error.h"

namespace rdma_kv::kv {
namespace {

[[noreturn]] void bad_id(const char* side, std::size_t index, std::int64_t id,
                         std::uint64_t blocks) {
  throw Error(Errc::kValue, join(side, " block id at index ", index, " is ", id, "; must be 0..",
                                 blocks - 1, "; nothing was written"));
}

template <class Id>
bool in_range(Id id, std::uint64_t blocks) noexcept {
  // A negative id becomes huge: one comparison finds both kinds.
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(id)) < blocks;
}

// The ids lie in the caller's memory, and another thread may change them meanwhile: what was
// checked must be what is used.
template <class Id>
Id read_once(const Id& id) noexcept {
  return static_cast<const volatile Id&>(id);
}

void check_layers(LayerRange layers, const Mapping& mapping) {
  const std::uint64_t end = std::uint64_t{layers.first} + layers.count;
  if (layers.count > 0 && end <= mapping.layers()) return;
  throw Error(Errc::kValue, join("layers ", layers.first, "..", end,
                                 " (exclusive) are out of range; "
                                 "there are ",
                                 mapping.layers(), " layers"));
}

// Where the first block that came before comes again, and which it is. Slow: for a message.
template <class Id>
std::pair<std::size_t, Id> first_repeated(std::span<const Run> runs) {
  std::unordered_set<std::uint32_t> seen;
  for (const Run& run : runs) {
    for (std::uint32_t block = run.dst_block; block < run.dst_block + run.count; ++block) {
      if (!seen.insert(block).second) return {seen.size(), static_cast<Id>(block)};
    }
  }
  return {};
}

}  // namespace

bool Plan::begin_marking(std::uint64_t dst_blocks) {
  if (dst_blocks > kMostMarkedBlocks) return false;
  if (seen_.size() < dst_blocks) seen_.resize(dst_blocks);
  if (++call_ != 0) return true;
  std::fill(seen_.begin(), seen_.end(), std::uint8_t{0});
  call_ = 1;
  return true;
}

// False when one of them was marked before.
bool Plan::mark(std::uint32_t first, std::uint32_t count) noexcept {
  std::uint8_t* const begin = seen_.data() + first;
  const bool is_new = std::memchr(begin, call_, count) == nullptr;
  std::memset(begin, call_, count);
  return is_new;
}

bool Plan::overlap() {
  sorted_.assign(runs().begin(), runs().end());
  std::sort(sorted_.begin(), sorted_.end(),
            [](const Run& a, const Run& b) { return a.dst_block < b.dst_block; });
  for (std::size_t i = 1; i < sorted_.size(); ++i) {
    if (sorted_[i].dst_block - sorted_[i - 1].dst_block < sorted_[i - 1].count) return true;
  }
  return false;
}

void Plan::clear() noexcept {
  run_count_ = 0;
  layers_ = {0, 0};
  blocks_ = 0;
  bytes_ = 0;
}

template <class Src, class Dst>
void Plan::check_and_join(std::span<const Src> src, std::span<const Dst> dst,
                          const Mapping& mapping) {
  const std::uint64_t src_blocks = mapping.src_blocks();
  const std::uint64_t dst_blocks = mapping.dst_blocks();
  const bool marks = begin_marking(dst_blocks);
  if (runs_.size() < src.size()) runs_.resize(src.size());
  // In registers: what is stored through one pointer may be read through another, as far as the
  // compiler knows.
  std::uint8_t* const seen = seen_.data();
  const std::uint8_t call = call_;
  const std::size_t count = src.size();
  Run* next = runs_.data();
  std::uint32_t src_next = UINT32_MAX;  // ids that would go on with the last run
  std::uint32_t dst_next = UINT32_MAX;
  std::size_t i = 0;
  bool twice = false;
  Src src_id = 0;
  Dst dst_id = 0;
  for (; i < count; ++i) {
    src_id = read_once(src[i]);
    dst_id = read_once(dst[i]);
    if (!in_range(src_id, src_blocks) || !in_range(dst_id, dst_blocks)) break;
    const auto s = static_cast<std::uint32_t>(src_id);
    const auto d = static_cast<std::uint32_t>(dst_id);
    if (marks) {
      if (seen[d] == call) {
        twice = true;
        break;
      }
      seen[d] = call;
    }
    if (s == src_next && d == dst_next) {
      ++next[-1].count;
    } else {
      *next++ = {s, d, 1};
    }
    src_next = s + 1;
    dst_next = d + 1;
  }
  run_count_ = static_cast<std::size_t>(next - runs_.data());
  if (!marks && i == count && overlap()) {
    twice = true;
    std::tie(i, dst_id) = first_repeated<Dst>(runs());
  }
  if (!twice && i == src.size()) return;
  clear();
  if (twice) {
    throw Error(Errc::kValue, join("remote block id ", dst_id, " at index ", i,
                                   " comes twice; each destination may be written once in a "
                                   "transfer; nothing was written"));
  }
  if (!in_range(src_id, src_blocks)) bad_id("local", i, src_id, src_blocks);
  bad_id("remote", i, dst_id, dst_blocks);
}

void Plan::assign(const Mapping& mapping, BlockIds src, BlockIds dst, LayerRange layers) {
  clear();
  check_layers(layers, mapping);
  std::visit(
      [&](auto s, auto d) {
        if (s.size() != d.size()) {
          throw Error(Errc::kValue, join(s.size(), " local block ids but ", d.size(),
                                         " remote ones; each local block needs its destination; "
                                         "nothing was written"));
        }
        check_and_join(s, d, mapping);
        blocks_ = s.size();
      },
      src, dst);
  layers_ = layers;
  bytes_ = blocks_ * layers.count * mapping.bytes_per_layer();
}

bool Plan::assign_received(const Mapping& mapping, std::span<const Run> runs, LayerRange layers) {
  clear();
  if (std::uint64_t{layers.first} + layers.count > mapping.layers()) return false;
  const std::uint64_t dst_blocks = mapping.dst_blocks();
  const bool marks = begin_marking(dst_blocks);
  if (runs_.size() < runs.size()) runs_.resize(runs.size());
  bool is_sound = true;
  for (const Run& run : runs) {
    if (run.count == 0 || std::uint64_t{run.dst_block} + run.count > dst_blocks) {
      is_sound = false;
      break;
    }
    runs_[run_count_++] = {0, run.dst_block, run.count};
    blocks_ += run.count;
    if (marks && !mark(run.dst_block, run.count)) {
      is_sound = false;
      break;
    }
  }
  if (!is_sound || (!marks && overlap())) {
    clear();
    return false;
  }
  layers_ = layers;
  bytes_ = blocks_ * layers.count * mapping.bytes_per_layer();
  return true;
}

Cursor::Cursor(const Plan& plan, const Mapping& mapping) noexcept
    : Cursor(plan.runs(), plan.layers(), mapping) {}

Cursor::Cursor(std::span<const Run> runs, LayerRange layers, const Mapping& mapping) noexcept
    : mapping_(&mapping),
      runs_(runs.data()),
      run_count_(runs.size()),
      layer_(layers.first),
      layer_end_(layers.first + (runs.empty() ? 0 : layers.count)) {}

void Cursor::advance_region() noexcept {
  run_ = 0;
  block_in_run_ = 0;
  if (++tensor_ < mapping_->tensors()) return;
  tensor_ = 0;
  ++layer_;
}

std::size_t Cursor::next(Extent* out, std::size_t most) noexcept {
  std::size_t made = 0;
  while (made < most && !at_end()) {
    const std::uint32_t region = layer_ * mapping_->tensors() + tensor_;
    const Walk walk = mapping_->walk(tensor_);
    const std::uint64_t src_base = mapping_->src_base(region) + walk.src_offset;
    const std::uint64_t dst_base = mapping_->dst_base(region) + walk.dst_offset;
    while (made < most && run_ < run_count_) {
      const Run& run = runs_[run_];
      const std::uint64_t src = src_base + std::uint64_t{run.src_block} * walk.src_stride;
      const std::uint64_t dst = dst_base + std::uint64_t{run.dst_block} * walk.dst_stride;
      if (walk.is_dense) {
        out[made++] = {src, dst, run.count * walk.bytes, region};
        ++run_;
        continue;
      }
      while (made < most && block_in_run_ < run.count) {
        out[made++] = {src + block_in_run_ * walk.src_stride, dst + block_in_run_ * walk.dst_stride,
                       walk.bytes, region};
        ++block_in_run_;
      }
      if (block_in_run_ < run.count) break;
      block_in_run_ = 0;
      ++run_;
    }
    if (run_ == run_count_) advance_region();
  }
  return made;
}

}  // namespace rdma_kv::kv
