#include "transport/rdma/notice_counter.h"

namespace rdma_kv::transport::rdma {

NoticeCounter::Seen NoticeCounter::see(std::uint32_t tag, std::size_t queue_pair) {
  if (queue_pairs_ == 1) return Seen::kDeliver;
  if (outstanding_ >= kMostPendingTags) return Seen::kTooMany;
  const auto [place, is_new] = pending_.try_emplace(tag);
  Pending& pending = place->second;
  if (is_new) pending.missing = static_cast<std::uint32_t>(queue_pairs_);
  ++pending.total;
  ++outstanding_;
  if (pending.counts[queue_pair]++ == 0) --pending.missing;
  if (pending.missing > 0) return Seen::kWait;
  for (std::size_t i = 0; i < queue_pairs_; ++i) {
    if (--pending.counts[i] == 0) ++pending.missing;
  }
  pending.total -= static_cast<std::uint32_t>(queue_pairs_);
  outstanding_ -= queue_pairs_;
  if (pending.total == 0) pending_.erase(place);
  return Seen::kDeliver;
}

}  // namespace rdma_kv::transport::rdma
