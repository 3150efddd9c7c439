"""Which part of a block goes where: agree()."""

from __future__ import annotations

import pytest

from rdma_kv import _core
from rdma_kv._core import Geometry, agree

KEY, VALUE, KEY_SCALE, VALUE_SCALE = range(4)
HEAD = 128  # bytes of one head of one block


def shards(heads: int, size: int, rank: int, *, kinds: tuple[int, ...] = (KEY, VALUE)) -> Geometry:
    """One rank's geometry when `heads` heads are split over `size` ranks."""
    block = heads * HEAD // size
    return Geometry(2, 8, [(kind, block, block) for kind in kinds], "", size, rank)


def replicated(size: int, rank: int, *sizes: int) -> Geometry:
    """Multi-head latent attention: every rank holds the same key-only blocks."""
    kinds = (KEY, KEY_SCALE)[: len(sizes)]
    return Geometry(2, 8, [(k, n, n) for k, n in zip(kinds, sizes, strict=True)], "", size, rank)


@pytest.mark.parametrize(
    ("heads", "prefill", "decode", "slice_"),
    [
        # (heads, (size, rank), (size, rank), (src offset, dst offset, bytes) in heads)
        (8, (1, 0), (1, 0), (0, 0, 8)),
        (8, (2, 0), (2, 0), (0, 0, 4)),
        (8, (2, 1), (2, 1), (0, 0, 4)),
        (8, (2, 0), (1, 0), (0, 0, 4)),
        (8, (2, 1), (1, 0), (0, 4, 4)),
        (8, (1, 0), (2, 0), (0, 0, 4)),
        (8, (1, 0), (2, 1), (4, 0, 4)),
        (8, (4, 0), (2, 0), (0, 0, 2)),
        (8, (4, 1), (2, 0), (0, 2, 2)),
        (8, (4, 2), (2, 1), (0, 0, 2)),
        (8, (4, 3), (2, 1), (0, 2, 2)),
        (8, (2, 0), (4, 0), (0, 0, 2)),
        (8, (2, 0), (4, 1), (2, 0, 2)),
        (8, (2, 1), (4, 2), (0, 0, 2)),
        (8, (2, 1), (4, 3), (2, 0, 2)),
        (6, (3, 0), (2, 0), (0, 0, 2)),
        (6, (3, 1), (2, 0), (0, 2, 1)),
        (6, (3, 1), (2, 1), (1, 0, 1)),
        (6, (3, 2), (2, 1), (0, 1, 2)),
    ],
)
def test_a_rank_writes_the_heads_that_both_hold(heads, prefill, decode, slice_):
    slices = agree(shards(heads, *prefill), shards(heads, *decode))

    assert slices == [tuple(part * HEAD for part in slice_)] * 2


@pytest.mark.parametrize(("prefill_size", "decode_size"), [(1, 1), (2, 4), (4, 2), (3, 2), (6, 4)])
def test_all_ranks_together_fill_every_decode_block_once(prefill_size, decode_size):
    heads = 12
    for rank in range(decode_size):
        decode = shards(heads, decode_size, rank)
        filled = bytearray(heads * HEAD // decode_size)

        for source in range(prefill_size):
            try:
                _, start, size = agree(shards(heads, prefill_size, source), decode)[0]
            except _core.CoreError:
                continue  # shares no head
            for i in range(start, start + size):
                filled[i] += 1

        assert set(filled) == {1}


def test_scales_are_split_like_their_tensor():
    prefill = Geometry(1, 8, [(KEY, 64, 64), (KEY_SCALE, 4, 4)], "", 2, 1)
    decode = Geometry(1, 8, [(KEY, 128, 128), (KEY_SCALE, 8, 8)], "", 1, 0)

    assert agree(prefill, decode) == [(0, 64, 64), (0, 4, 4)]


@pytest.mark.parametrize("sizes", [(576,), (576, 16)], ids=["key", "key+scale"])
@pytest.mark.parametrize(
    ("prefill", "decode"), [((1, 0), (1, 0)), ((2, 1), (1, 0)), ((1, 0), (4, 3)), ((2, 0), (2, 1))]
)
def test_replicated_key_only_blocks_are_copied_whole(prefill, decode, sizes):
    slices = agree(replicated(*prefill, *sizes), replicated(*decode, *sizes))

    assert slices == [(0, 0, size) for size in sizes]


@pytest.mark.parametrize(
    ("prefill", "decode"), [((0, 0), (2, 1)), ((2, 1), (0, 0)), ((0, 0), (0, 0))]
)
def test_an_undeclared_side_takes_the_other_sides_word(prefill, decode):
    def side(size: int, rank: int) -> Geometry:
        return Geometry(1, 8, [(KEY, 64, 64), (VALUE, 64, 64)], "", size, rank)

    assert agree(side(*prefill), side(*decode)) == [(0, 0, 64)] * 2


def test_an_empty_dtype_agrees_with_everything():
    told = Geometry(1, 8, [(KEY, 64, 64)], "float16")
    silent = Geometry(1, 8, [(KEY, 64, 64)], "")

    assert agree(told, silent) == agree(silent, told) == [(0, 0, 64)]


def test_block_counts_and_strides_may_differ():
    prefill = Geometry(1, 8, [(KEY, 64, 64)])
    decode = Geometry(1, 9000, [(KEY, 64, 4096)])

    assert agree(prefill, decode) == [(0, 0, 64)]


def base(**change: object) -> Geometry:
    shape = {"layers": 2, "block_count": 8, "tensors": [(KEY, 64, 64), (VALUE, 64, 64)]}
    return Geometry(**{**shape, **change})


@pytest.mark.parametrize(
    ("prefill", "decode", "words"),
    [
        (base(layers=3), base(layers=5), ["layers", "3", "5"]),
        (base(), base(tensors=[(KEY, 64, 64)]), ["key + value", "decode has key"]),
        (
            base(tensors=[(KEY, 64, 64), (KEY_SCALE, 4, 4)]),
            base(),
            ["key + key scale", "key + value"],
        ),
        (base(dtype="float16"), base(dtype="bfloat16"), ["float16", "bfloat16"]),
        (base(tensors=[(KEY, 64, 64), (VALUE, 96, 96)]), base(), ["value", "96", "64"]),
        (base(), base(tp_size=2), ["64 * 1", "64 * 2"]),
        (base(tp_size=3), base(tp_size=2), ["64 * 3", "64 * 2", "rank 0 of 3", "rank 0 of 2"]),
        (shards(8, 2, 0), shards(8, 2, 1), ["no head", "rank 0 of 2", "rank 1 of 2"]),
        (shards(8, 4, 0), shards(8, 2, 1), ["no head", "rank 0 of 4", "rank 1 of 2"]),
        (replicated(2, 0, 576), replicated(2, 0, 512), ["576", "512"]),
    ],
)
def test_what_would_corrupt_is_refused_with_both_values(prefill, decode, words):
    with pytest.raises(_core.CoreError) as refusal:
        agree(prefill, decode)

    for word in words:
        assert word in str(refusal.value)
