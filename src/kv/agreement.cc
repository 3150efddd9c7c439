#include "kv/agreement.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace rdma_kv::kv {
namespace {

[[noreturn]] void mismatch(const std::string& what) { throw Error(Errc::kLayoutMismatch, what); }

std::string tensor_names(const Geometry& geometry) {
  std::string names;
  for (const auto& tensor : geometry.tensors) {
    if (!names.empty()) names += " + ";
    names += name_of(tensor.kind);
  }
  return names;
}

struct Ranks {
  std::uint64_t prefill_size, prefill_rank, decode_size, decode_rank;
};

// Fills in what a side left undeclared (tp_size 0) from the other side's word.
Ranks ranks_of(const Geometry& prefill, const Geometry& decode) {
  Ranks r{prefill.tp_size, prefill.tp_rank, decode.tp_size, decode.tp_rank};
  if (r.prefill_size == 0 && r.decode_size == 0) return {1, 0, 1, 0};
  if (r.prefill_size == 0) return {r.decode_size, r.decode_rank, r.decode_size, r.decode_rank};
  if (r.decode_size == 0) return {r.prefill_size, r.prefill_rank, r.prefill_size, r.prefill_rank};
  return r;
}

std::string shards(const char* side, std::uint64_t size, std::uint64_t rank, std::uint64_t bytes) {
  return join(side, " rank ", rank, " of ", size, " with ", bytes, " bytes a block");
}

// Latent attention keeps one key (and its scale) for all heads, the same on every rank. Asked of
// all tensors together: a key copied whole with a scale cut in parts would be nonsense.
bool is_replicated(const Geometry& prefill, const Geometry& decode) {
  return std::equal(prefill.tensors.begin(), prefill.tensors.end(), decode.tensors.begin(),
                    [](const TensorSpec& src, const TensorSpec& dst) {
                      const bool is_key =
                          src.kind == TensorKind::kKey || src.kind == TensorKind::kKeyScale;
                      return is_key && src.block_bytes == dst.block_bytes;
                    });
}

Slice slice_of(const TensorSpec& src, const TensorSpec& dst, const Ranks& r) {
  const std::uint64_t src_all = src.block_bytes * r.prefill_size;
  const std::uint64_t dst_all = dst.block_bytes * r.decode_size;
  const auto both = join(shards("prefill", r.prefill_size, r.prefill_rank, src.block_bytes), ", ",
                         shards("decode", r.decode_size, r.decode_rank, dst.block_bytes));
  if (src_all != dst_all) {
    mismatch(join("block bytes of ", name_of(src.kind), " do not fit together: ", both, "; ",
                  src.block_bytes, " * ", r.prefill_size, " must equal ", dst.block_bytes, " * ",
                  r.decode_size));
  }
  const std::uint64_t src_begin = r.prefill_rank * src.block_bytes;
  const std::uint64_t dst_begin = r.decode_rank * dst.block_bytes;
  const std::uint64_t begin = std::max(src_begin, dst_begin);
  const std::uint64_t end = std::min(src_begin + src.block_bytes, dst_begin + dst.block_bytes);
  if (begin >= end) {
    mismatch(join("no head of ", name_of(src.kind), " is on both ranks: ", both,
                  "; connect each prefill rank to the decode ranks that share heads with it"));
  }
  return {begin - src_begin, begin - dst_begin, end - begin};
}

}  // namespace

std::vector<Slice> agree(const Geometry& prefill, const Geometry& decode) {
  if (prefill.layers != decode.layers) {
    mismatch(join("layers differ: prefill has ", prefill.layers, ", decode has ", decode.layers));
  }
  if (tensor_names(prefill) != tensor_names(decode)) {
    mismatch(join("tensors of a layer differ: prefill has ", tensor_names(prefill), ", decode has ",
                  tensor_names(decode)));
  }
  if (prefill.dtype != decode.dtype && !prefill.dtype.empty() && !decode.dtype.empty()) {
    mismatch(join("dtypes differ: prefill has ", prefill.dtype, ", decode has ", decode.dtype));
  }
  const Ranks ranks = ranks_of(prefill, decode);
  const bool replicated = is_replicated(prefill, decode);
  std::vector<Slice> slices;
  for (std::size_t i = 0; i < prefill.tensors.size(); ++i) {
    const auto& src = prefill.tensors[i];
    slices.push_back(replicated ? Slice{0, 0, src.block_bytes}
                                : slice_of(src, decode.tensors[i], ranks));
  }
  return slices;
}

}  // namespace rdma_kv::kv
