#include "transport/rdma/connector.h"

#include <algorithm>
#include <utility>

namespace rdma_kv::transport::rdma {
namespace {

// The decode side's regions as its rail laid out their keys.
KeyTable remote_keys(const kv::Mapping& mapping, std::vector<std::uint32_t> rkeys) {
  std::vector<std::uint64_t> bases;
  std::vector<std::uint64_t> spans;
  for (std::uint32_t layer = 0; layer < mapping.layers(); ++layer) {
    for (std::uint32_t tensor = 0; tensor < mapping.tensors(); ++tensor) {
      bases.push_back(mapping.dst_base(layer * mapping.tensors() + tensor));
      spans.push_back(mapping.dst_blocks() * mapping.walk(tensor).dst_stride);
    }
  }
  const std::optional<unsigned> shift = shift_of(spans, rkeys.size());
  if (!shift) {
    throw Error(Errc::kHandshake,
                join("the peer gave ", rkeys.size(), " rkeys for its ", bases.size(),
                     " regions, which are neither one each nor those of equal chunks; do both "
                     "sides run the same version?"));
  }
  return KeyTable(std::move(bases), spans, *shift, std::move(rkeys));
}

}  // namespace

Connector::Connector(std::shared_ptr<const Rail> rail, std::uint32_t queue_pairs)
    : endpoint_(rail->endpoint()) {
  if (queue_pairs == 0 || queue_pairs > kMostQueuePairs) {
    throw Error(Errc::kValue, join(queue_pairs, " queue pairs for a peer; allowed are 1..",
                                   kMostQueuePairs, " (KVCACHE_QPS_PER_PEER)"));
  }
  const std::shared_ptr<const verbs::Device>& device = rail->device();
  verbs::QueuePairSpec spec =
      verbs::clamp({kSendDepth, kMostSources, 0}, device->limits());
  // Room for an error completion of everything that can be posted.
  spec.send_depth = std::min(spec.send_depth,
                             static_cast<std::uint32_t>(device->limits().max_cqe) / queue_pairs);
  if (spec.send_depth < kLeastChain) {
    throw Error(Errc::kUnavailable, join(rail->path().name, " has room for ", spec.send_depth,
                                         " sends a queue pair; ", kLeastChain, " are needed"));
  }
  parts_.channel = std::make_shared<verbs::CompletionChannel>(device);
  parts_.queue = std::make_shared<verbs::CompletionQueue>(
      parts_.channel, *device, static_cast<int>(spec.send_depth * queue_pairs), nullptr);
  for (std::uint32_t i = 0; i < queue_pairs; ++i) {
    // The peer may do nothing to us: no access.
    verbs::QueuePair queue_pair(device, parts_.queue, spec, rail->path(), {});
    endpoint_.queue_pairs.push_back({queue_pair.number(), queue_pair.psn()});
    parts_.lanes.emplace_back(std::move(queue_pair), spec.send_depth);
  }
  parts_.rail = std::move(rail);
}

std::unique_ptr<Link> Connector::connect(const RemoteEnd& remote, const Endpoint& endpoint,
                                         std::vector<std::uint32_t> rkeys, bool flush) {
  if (parts_.lanes.empty()) throw Error(Errc::kValue, "this connector was used already");
  if (endpoint.queue_pairs.size() != parts_.lanes.size()) {
    throw Error(Errc::kHandshake, join("the peer answered ", parts_.lanes.size(),
                                       " queue pairs with ", endpoint.queue_pairs.size()));
  }
  KeyTable keys = remote_keys(*remote.mapping, std::move(rkeys));
  const Rail& rail = *parts_.rail;
  for (std::size_t i = 0; i < parts_.lanes.size(); ++i) {
    parts_.lanes[i].queue_pair().connect(rail.path(), rail.path_to(endpoint, i),
                                         rail.options().ib_timeout);
  }
  parts_.side = std::make_unique<stream::SideStream>(remote);
  const ChainLimits limits{
      .most_message_bytes = rail.port().most_message_bytes,
      .most_sources = parts_.lanes.front().queue_pair().spec().send_sges,
      .flush = flush,
      .scratch = rail.scratch(),
  };
  return std::make_unique<RdmaLink>(
      std::exchange(parts_, {}), std::move(keys), limits,
      join(verbs::text_of(endpoint.gid), ", MTU ", std::min(rail.port().mtu_bytes,
                                                           endpoint.mtu_bytes)));
}

}  // namespace rdma_kv::transport::rdma
