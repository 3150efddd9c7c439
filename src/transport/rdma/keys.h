// Which key opens an address, for all regions of one side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace rdma_kv::transport::rdma {

// A region is registered whole where the NIC can, else in chunks of 2^shift bytes, all of one size
// on one side. The keys are a flat list: region by region, chunk by chunk. A power of two lets the
// receiver of the list find the size of the chunks from the list's length alone.
class KeyTable {
 public:
  struct Found {
    std::uint32_t key;
    std::uint64_t left;  // bytes from the address to the end of what the key opens
  };

  // `bases` and `spans` (bytes, strides included) have one entry per region.
  KeyTable(std::vector<std::uint64_t> bases, const std::vector<std::uint64_t>& spans,
           unsigned shift, std::vector<std::uint32_t> keys);

  // `address` lies in `region`: the plan has checked it.
  Found find(std::uint32_t region, std::uint64_t address) const noexcept {
    const Row& row = rows_[region];
    const std::uint64_t offset = address - row.base;
    const std::uint64_t chunk = offset >> shift_;
    return {keys_[row.first + chunk], ((chunk + 1) << shift_) - offset};
  }

 private:
  struct Row {
    std::uint64_t base;
    std::size_t first;
  };
  std::vector<Row> rows_;
  std::vector<std::uint32_t> keys_;
  unsigned shift_;
};

// Larger than any region: nothing is cut.
inline constexpr unsigned kWholeShift = 62;

// The largest power of two that a NIC with this limit (0: none) can register at once.
unsigned shift_for(std::uint64_t most_bytes) noexcept;

// Keys that regions of these spans need.
std::size_t key_count(const std::vector<std::uint64_t>& spans, unsigned shift) noexcept;

// The shift with which these spans need so many keys; empty when there is none. Where several fit,
// all regions are whole and any of them will do.
std::optional<unsigned> shift_of(const std::vector<std::uint64_t>& spans,
                                 std::size_t keys) noexcept;

}  // namespace rdma_kv::transport::rdma
