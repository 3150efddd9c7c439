#include "transport/rdma/keys.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

namespace rdma_kv::transport::rdma {
namespace {

constexpr unsigned kLeastShift = 12;  // a page: no NIC takes less

std::uint64_t chunks_of(std::uint64_t span, unsigned shift) noexcept {
  const std::uint64_t chunks = (span + (std::uint64_t{1} << shift) - 1) >> shift;
  return std::max<std::uint64_t>(chunks, 1);
}

}  // namespace

KeyTable::KeyTable(std::vector<std::uint64_t> bases, const std::vector<std::uint64_t>& spans,
                   unsigned shift, std::vector<std::uint32_t> keys)
    : keys_(std::move(keys)), shift_(shift) {
  assert(bases.size() == spans.size() && keys_.size() == key_count(spans, shift));
  std::size_t first = 0;
  for (std::size_t i = 0; i < bases.size(); ++i) {
    rows_.push_back({bases[i], first});
    first += chunks_of(spans[i], shift);
  }
}

unsigned shift_for(std::uint64_t most_bytes) noexcept {
  if (most_bytes == 0) return kWholeShift;
  return std::clamp(static_cast<unsigned>(std::bit_width(most_bytes)) - 1, kLeastShift,
                    kWholeShift);
}

std::size_t key_count(const std::vector<std::uint64_t>& spans, unsigned shift) noexcept {
  std::size_t count = 0;
  for (const std::uint64_t span : spans) count += chunks_of(span, shift);
  return count;
}

std::optional<unsigned> shift_of(const std::vector<std::uint64_t>& spans,
                                 std::size_t keys) noexcept {
  for (unsigned shift = kWholeShift; shift >= kLeastShift; --shift) {
    const std::size_t count = key_count(spans, shift);
    if (count == keys) return shift;
    if (count > keys) break;  // smaller chunks only need more
  }
  return std::nullopt;
}

}  // namespace rdma_kv::transport::rdma
