#include "transport/rdma/chain.h"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

namespace rdma_kv::transport::rdma {
namespace {

constexpr std::uint64_t kMostMessage = std::uint64_t{1} << 31;

}  // namespace

Chain::Chain(const KeyTable& local, KeyTable remote, const ChainLimits& limits)
    : local_(local),
      remote_(std::move(remote)),
      flush_(limits.flush),
      most_sources_(limits.most_sources),
      // A source's length has 32 bits.
      most_message_bytes_(std::clamp<std::uint64_t>(limits.most_message_bytes, 1, kMostMessage)) {
  for (std::uint32_t bytes = 0; bytes <= kFlushBytes; ++bytes) {
    read_targets_[bytes] = limits.scratch;
    read_targets_[bytes].length = bytes;
  }
}

bool Chain::stage(Write& write) noexcept {
  if (staged_ < staged_end_) return true;
  staged_ = 0;
  staged_end_ = static_cast<std::uint32_t>(write.cursor.next(extents_.data(), extents_.size()));
  return staged_end_ > 0;
}

void Chain::fill(Write& write, std::uint32_t most) noexcept {
  size_ = source_count_ = 0;
  open_ = nullptr;
  // Kept free at the end: the notice, and the read-back of the last region.
  const std::uint32_t room = most - 1 - (flush_ ? 1 : 0);
  while (stage(write)) {
    kv::Extent& extent = extents_[staged_];
    const KeyTable::Found local = local_.find(extent.region, extent.src);
    const KeyTable::Found remote = remote_.find(extent.region, extent.dst);
    const std::uint64_t bytes =
        std::min({extent.bytes, local.left, remote.left, most_message_bytes_});
    if (source_count_ == kChainSources) break;
    if (!join_last(extent, bytes, local.key, remote.key)) {
      const bool leaves_region = flush_ && open_ != nullptr && open_region_ != extent.region;
      if (size_ + (leaves_region ? 2 : 1) > room) break;
      if (leaves_region) add_read_back();
      add_write(extent, bytes, local.key, remote.key);
    }
    extent.src += bytes;
    extent.dst += bytes;
    extent.bytes -= bytes;
    if (extent.bytes == 0) ++staged_;
  }
  if (flush_ && open_ != nullptr) add_read_back();
  is_last_ = is_exhausted(write);
}

bool Chain::join_last(const kv::Extent& extent, std::uint64_t bytes, std::uint32_t lkey,
                      std::uint32_t rkey) noexcept {
  if (open_ == nullptr || open_region_ != extent.region || open_->wr.rdma.rkey != rkey ||
      open_->wr.rdma.remote_addr + open_bytes_ != extent.dst ||
      static_cast<std::uint32_t>(open_->num_sge) == most_sources_ ||
      open_bytes_ + bytes > most_message_bytes_) {
    return false;
  }
  sources_[source_count_++] = {extent.src, static_cast<std::uint32_t>(bytes), lkey};
  ++open_->num_sge;
  open_bytes_ += bytes;
  return true;
}

void Chain::add_write(const kv::Extent& extent, std::uint64_t bytes, std::uint32_t lkey,
                      std::uint32_t rkey) noexcept {
  ibv_send_wr& request = add(IBV_WR_RDMA_WRITE);
  request.sg_list = &sources_[source_count_];
  request.num_sge = 1;
  request.wr.rdma.remote_addr = extent.dst;
  request.wr.rdma.rkey = rkey;
  sources_[source_count_++] = {extent.src, static_cast<std::uint32_t>(bytes), lkey};
  open_ = &request;
  open_region_ = extent.region;
  open_bytes_ = bytes;
}

void Chain::add_read_back() noexcept {
  const auto bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(kFlushBytes, open_bytes_));
  const ibv_send_wr& written = *open_;
  ibv_send_wr& request = add(IBV_WR_RDMA_READ);
  request.sg_list = &read_targets_[bytes];
  request.num_sge = 1;
  request.wr.rdma.remote_addr = written.wr.rdma.remote_addr + open_bytes_ - bytes;
  request.wr.rdma.rkey = written.wr.rdma.rkey;
  open_ = nullptr;
}

void Chain::append_notice(std::uint32_t tag) noexcept {
  if (open_ != nullptr && !flush_) {
    open_->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;  // the last write carries it
    open_->imm_data = htonl(tag);
    return;
  }
  ibv_send_wr& request = add(IBV_WR_RDMA_WRITE_WITH_IMM);
  request.sg_list = nullptr;
  request.num_sge = 0;
  request.wr.rdma = {};  // of no bytes: no address is looked at
  request.imm_data = htonl(tag);
  if (flush_) request.send_flags = IBV_SEND_FENCE;
}

void Chain::fill_notice(std::uint32_t tag) noexcept {
  size_ = source_count_ = 0;
  open_ = nullptr;
  append_notice(tag);
}

ibv_send_wr& Chain::add(ibv_wr_opcode opcode) noexcept {
  ibv_send_wr& request = requests_[size_++];
  request.opcode = opcode;
  request.send_flags = 0;
  return request;
}

ibv_send_wr* Chain::seal(std::uint64_t id) noexcept {
  for (std::uint32_t i = 0; i < size_; ++i) {
    requests_[i].wr_id = id;
    requests_[i].next = i + 1 < size_ ? &requests_[i + 1] : nullptr;
  }
  ibv_send_wr& last = requests_[size_ - 1];
  last.wr_id = id | 1;
  last.send_flags |= IBV_SEND_SIGNALED;
  return requests_.data();
}

}  // namespace rdma_kv::transport::rdma
