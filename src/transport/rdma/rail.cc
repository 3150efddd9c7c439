#include "transport/rdma/rail.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "transport/rdma/limits.h"

namespace rdma_kv::transport::rdma {
namespace {

struct NicName {
  std::string nic;
  int port = 0;  // 0: any active one
};

NicName parse(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return {text, 0};
  NicName name{text.substr(0, colon), 0};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, name.port);
  if (error == std::errc{} && stop == end && name.port > 0) return name;
  throw Error(Errc::kValue,
              join("NIC '", text, "': after the colon comes a port number, 1 or more"));
}

verbs::LocalPath path_of(const verbs::PortInfo& port, const verbs::GidEntry& gid) {
  return {
      port.port, gid.index, port.is_ethernet,
      join(port.nic, " port ", port.port, " GID ", gid.index, " (", verbs::text_of(gid.gid), ")")};
}

verbs::GidChoice gid_of(const verbs::PortInfo& port, int wanted) {
  return verbs::choose_gid(port.gids, wanted, join(port.nic, " port ", port.port));
}

// With strides: what both sides can tell from the geometry. See KeyTable.
std::vector<std::uint64_t> spans_of(const kv::Geometry& geometry) {
  std::vector<std::uint64_t> out;
  for (std::uint32_t layer = 0; layer < geometry.layers; ++layer) {
    for (const kv::TensorSpec& tensor : geometry.tensors) {
      out.push_back(geometry.block_count * tensor.stride_bytes);
    }
  }
  return out;
}

}  // namespace

Rail::Rail(Reactor& reactor, const kv::Layout& layout, const RailOptions& options)
    : reactor_(reactor),
      options_(options),
      device_(std::make_shared<verbs::Device>(parse(options.nic).nic)),
      port_(verbs::choose_port(*device_, parse(options.nic).port)),
      gid_(gid_of(port_, options.gid_index)),
      path_(path_of(port_, gid_.entry)),
      scratch_bytes_(std::make_unique<std::uint64_t>(0)),
      hub_(std::make_shared<ReceiveHub>(reactor, device_)) {
  static_assert(kFlushBytes <= sizeof(std::uint64_t));
  register_layout(layout);
  hub_->start();
  events_ = std::make_unique<AsyncEvents>(reactor, device_);
}

void Rail::register_layout(const kv::Layout& layout) {
  const std::uint64_t device_most = device_->limits().max_mr_size;
  const std::uint64_t most =
      options_.most_mr_bytes == 0 ? device_most : std::min(device_most, options_.most_mr_bytes);
  const std::vector<std::uint64_t> spans = spans_of(layout.geometry());
  // Where the whole fits, whatever the power of two below the limit, nothing is cut.
  const bool fits = std::all_of(spans.begin(), spans.end(), [&](auto s) { return s <= most; });
  const unsigned shift = fits || most == 0 ? kWholeShift : shift_for(most);

  registration_ = register_regions(device_, layout, shift,
                                   {.remote_write = options_.remote_write,
                                    .remote_read = options_.remote_read,
                                    .relaxed_ordering = options_.relaxed_ordering});
  std::vector<std::uint64_t> bases;
  std::vector<std::uint32_t> lkeys;
  for (std::uint32_t index = 0; index < layout.region_count(); ++index) {
    bases.push_back(layout.base(index));
    const auto add = [&](std::vector<std::uint32_t>& keys, std::vector<std::uint32_t> more) {
      // The span counts the last stride whole: its tail may open a chunk that holds no byte.
      more.resize(key_count({spans[index]}, shift), more.back());
      keys.insert(keys.end(), more.begin(), more.end());
    };
    add(lkeys, registration_.regions[index].lkeys());
    add(rkeys_, registration_.regions[index].rkeys());
  }
  local_keys_.emplace(std::move(bases), spans, shift, std::move(lkeys));
  const kv::Region scratch{reinterpret_cast<std::uint64_t>(scratch_bytes_.get()), kFlushBytes,
                           kv::kHostDevice};
  scratch_.emplace(device_, scratch, kWholeShift, verbs::MemoryAccess{});
}

std::uint64_t Rail::registered_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const verbs::MemoryRegion& region : registration_.regions) bytes += region.bytes();
  return bytes;
}

ibv_sge Rail::scratch() const noexcept {
  return {reinterpret_cast<std::uint64_t>(scratch_bytes_.get()), kFlushBytes,
          scratch_->lkeys().front()};
}

Endpoint Rail::endpoint() const {
  return {gid_.entry.gid, port_.lid, port_.mtu_bytes, port_.link_layer(), {}};
}

verbs::RemotePath Rail::path_to(const Endpoint& remote, std::size_t index) const {
  if (remote.link_layer != port_.link_layer()) {
    throw Error(Errc::kHandshake,
                join("our ", path_.name, " is ", port_.link_layer(), ", the peer's GID ",
                     verbs::text_of(remote.gid), " is ", remote.link_layer,
                     "; choose NICs of one kind (KVCACHE_RDMA_NICS)"));
  }
  const QueuePairAddress& address = remote.queue_pairs.at(index);
  return {remote.gid, remote.lid, std::min(port_.mtu_bytes, remote.mtu_bytes), address.number,
          address.psn};
}

std::string Rail::describe() const {
  const std::string& gpu = gpu_memory();
  const bool tells_flush = !options_.flush.empty() && (!gpu.empty() || options_.remote_read);
  return join(path_.name, ", ", port_.link_layer(), ", MTU ", port_.mtu_bytes, ", ",
              port_.rate_gbps, " Gb/s, ", registration_.regions.size(), " regions of ",
              registered_bytes(), " bytes in ", rkeys_.size(), " memory regions; ", gpu,
              gpu.empty() ? "" : "; ", tells_flush ? join("flush: ", options_.flush, "; ") : "",
              "GID: ", gid_.reason);
}

}  // namespace rdma_kv::transport::rdma
