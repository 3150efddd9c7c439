"""Which writes a call makes: plan_extents()."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdma_kv._core import Geometry, Layout, plan_extents
from support.kv_model import (
    KEY,
    KEY_SCALE,
    VALUE,
    VALUE_SCALE,
    Memory,
    Model,
    Rank,
    execute,
    expected,
)

# ---- tables: exact addresses -----------------------------------------------------------------


def layout(tensors, bases, *, layers=1, blocks=16):
    return Layout(Geometry(layers, blocks, tensors), bases, [-1] * len(bases))


DENSE = [(KEY, 100, 100)]


@pytest.mark.parametrize(
    ("src", "dst", "extents"),
    [
        ([], [], []),
        ([3], [9], [(1300, 5900, 100, 0)]),
        ([3, 4, 5], [9, 10, 11], [(1300, 5900, 300, 0)]),
        # Neighbours on one side only, or in descending order, are not one run.
        ([3, 4], [9, 11], [(1300, 5900, 100, 0), (1400, 6100, 100, 0)]),
        ([3, 5], [9, 10], [(1300, 5900, 100, 0), (1500, 6000, 100, 0)]),
        ([4, 3], [10, 9], [(1400, 6000, 100, 0), (1300, 5900, 100, 0)]),
        # One source may go to several places.
        ([3, 3], [9, 10], [(1300, 5900, 100, 0), (1300, 6000, 100, 0)]),
        ([0, 1, 15, 7, 8], [14, 15, 0, 1, 2], [
            (1000, 6400, 200, 0), (2500, 5000, 100, 0), (1700, 5100, 200, 0)]),
    ],
)  # fmt: skip
def test_neighbours_on_both_sides_are_one_extent(src, dst, extents):
    made = plan_extents(layout(DENSE, [1000]), layout(DENSE, [5000]), src, dst, 0, 1)

    assert made == extents


def test_a_stride_keeps_blocks_apart():
    padded = layout([(KEY, 100, 128)], [1000])

    into_padded = plan_extents(layout(DENSE, [1000]), padded, [3, 4], [9, 10], 0, 1)
    from_padded = plan_extents(padded, layout(DENSE, [5000]), [3, 4], [9, 10], 0, 1)

    assert into_padded == [(1300, 1000 + 9 * 128, 100, 0), (1400, 1000 + 10 * 128, 100, 0)]
    assert from_padded == [(1000 + 3 * 128, 5900, 100, 0), (1000 + 4 * 128, 6000, 100, 0)]


def test_layers_then_tensors_then_runs():
    tensors = [(KEY, 8, 8), (VALUE, 8, 8), (KEY_SCALE, 1, 1), (VALUE_SCALE, 1, 1)]
    src = layout(tensors, [1000 * (i + 1) for i in range(12)], layers=3)
    dst = layout(tensors, [100_000 * (i + 1) for i in range(12)], layers=3)

    made = plan_extents(src, dst, [2, 3, 0], [1, 2, 9], 1, 2)

    assert made == [
        piece
        for region in range(4, 12)
        for size in [8 if region % 4 < 2 else 1]
        for piece in [
            (1000 * (region + 1) + 2 * size, 100_000 * (region + 1) + size, 2 * size, region),
            (1000 * (region + 1), 100_000 * (region + 1) + 9 * size, size, region),
        ]
    ]


def test_addresses_are_64_bits_wide():
    high = 1 << 46
    blocks, size = 131_072, 16_384
    src = layout([(KEY, size, size)], [high], blocks=blocks)
    dst = layout([(KEY, size, 65_536)], [high + (1 << 40)], blocks=blocks)  # 8 GiB

    made = plan_extents(src, dst, [0, 131_071], [131_071, 70_000], 0, 1)

    assert made == [
        (high, high + (1 << 40) + 131_071 * 65_536, size, 0),
        (high + 131_071 * size, high + (1 << 40) + 70_000 * 65_536, size, 0),
    ]


def test_a_whole_region_beyond_4_gib_is_one_extent():
    blocks, size = 131_072, 65_536
    side = layout([(KEY, size, size)], [1 << 46], blocks=blocks)
    every = np.arange(blocks, dtype=np.int32)

    assert plan_extents(side, side, every, every, 0, 1) == [(1 << 46, 1 << 46, blocks * size, 0)]


def test_a_rank_reads_and_writes_its_part_of_each_block():
    whole = Layout(Geometry(1, 16, [(KEY, 100, 100)], "", 1, 0), [1000], [-1])
    half = Layout(Geometry(1, 16, [(KEY, 50, 50)], "", 2, 1), [5000], [-1])

    one_to_two = plan_extents(whole, half, [3, 4], [9, 10], 0, 1)
    two_to_one = plan_extents(half, whole, [3, 4], [9, 10], 0, 1)

    assert one_to_two == [(1350, 5450, 50, 0), (1450, 5500, 50, 0)]
    assert two_to_one == [(5150, 1950, 50, 0), (5200, 2050, 50, 0)]


# ---- bad input: refused whole, by name -------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "dst", "message"),
    [
        ([0, 16], [0, 1], "local block id at index 1 is 16; must be 0..15"),
        ([0, -1], [0, 1], "local block id at index 1 is -1; must be 0..15"),
        ([0, 1], [16, 1], "remote block id at index 0 is 16; must be 0..15"),
        ([0, 1], [0, -7], "remote block id at index 1 is -7; must be 0..15"),
        ([0, 2**31], [0, 1], "index 1 is 2147483648"),
        ([0, 2**32], [0, 1], "index 1 is 4294967296"),  # 0, if cut to 32 bits
        ([-(2**63)], [0], "index 0 is -9223372036854775808"),
        ([0, 1, 2], [5, 6, 5], "remote block id 5 at index 2 comes twice"),
        ([0, 1, 2], [5, 6], "3 local block ids but 2 remote"),
        ([], [5], "0 local block ids but 1 remote"),
    ],
)
@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_bad_ids_are_refused_with_their_place_and_value(src, dst, message, kind):
    side = layout(DENSE, [1000])
    if kind is np.array:
        src, dst = np.array(src, dtype=np.int64), np.array(dst, dtype=np.int64)
    else:
        src, dst = kind(src), kind(dst)

    with pytest.raises(ValueError, match=message):
        plan_extents(side, side, src, dst, 0, 1)


@pytest.mark.parametrize(
    "ids",
    [
        [0.0, 1.0],
        [True, False],
        ["0", "1"],
        [None, 1],
        [2**64, 1],
        np.array([0.0, 1.0]),
        np.array([True, False]),
        np.array([[0, 1]]),
        np.array([0, 1], dtype=np.uint64),
        np.array([0, 1], dtype=np.int16),
        np.array([0, 1], dtype=">i4"),
        {0, 1},
        b"01",
        "01",
        7,
        None,
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["local", "remote"])
def test_what_is_not_a_list_of_ids_is_refused(ids, place):
    side = layout(DENSE, [1000])
    src, dst = (ids, [0, 1]) if place == "local" else ([0, 1], ids)

    with pytest.raises((TypeError, ValueError)) as refusal:
        plan_extents(side, side, src, dst, 0, 1)

    assert "block id" in str(refusal.value)


@pytest.mark.parametrize(("first", "count"), [(0, 4), (3, 1), (2, 2), (2**32 - 1, 2), (1, 0)])
def test_layers_out_of_range_are_refused_even_without_ids(first, count):
    side = layout(DENSE, [1000, 3000, 5000], layers=3)

    for ids in ([], [1]):
        with pytest.raises(ValueError, match="layers"):
            plan_extents(side, side, ids, ids, first, count)


def test_a_refusal_leaves_nothing_behind():
    side = layout(DENSE, [1000])
    with pytest.raises(ValueError, match="twice"):
        plan_extents(side, side, [0, 1, 2], [5, 6, 5], 0, 1)

    assert len(plan_extents(side, side, [0, 1], [5, 6], 0, 1)) == 1


# ---- properties ------------------------------------------------------------------------------


@st.composite
def ids(draw, pairs_most: int, src_blocks: int, dst_blocks: int):
    """Pairs of ids: runs of neighbours and single blocks, each destination once."""
    free = set(range(dst_blocks))
    pairs = []
    for _ in range(draw(st.integers(0, pairs_most))):
        if not free:
            break
        src = draw(st.integers(0, src_blocks - 1))
        dst = draw(st.sampled_from(sorted(free)))
        for _ in range(draw(st.sampled_from([1, 1, 2, 5]))):
            if src >= src_blocks or dst not in free:
                break
            free.discard(dst)
            pairs.append((src, dst))
            src, dst = src + 1, dst + 1
    return pairs


@st.composite
def containers(draw, values):
    return draw(
        st.sampled_from(
            [
                list(values),
                tuple(values),
                np.array(values, dtype=np.int32),
                np.array(values, dtype=np.int64),
            ]
        )
    )


@st.composite
def writes(draw):
    prefill_size, decode_size = draw(
        st.sampled_from([(1, 1), (2, 1), (1, 2), (4, 2), (2, 4), (3, 2), (2, 3)])
    )
    kinds = draw(
        st.sampled_from([(KEY,), (KEY, VALUE), (KEY, VALUE, KEY_SCALE, VALUE_SCALE)])
        if prefill_size == decode_size
        else st.sampled_from([(KEY, VALUE), (KEY, VALUE, KEY_SCALE, VALUE_SCALE)])
    )
    model = Model(
        layers=draw(st.integers(1, 3)),
        heads=12,
        head_bytes={kind: draw(st.integers(1, 5)) for kind in kinds},
    )
    rank = draw(st.integers(0, prefill_size - 1))
    # The decode rank that holds this prefill rank's first head.
    peer = rank * decode_size // prefill_size
    padding = st.sampled_from([0, 0, 1, 16])
    src = Memory(
        model, Rank(draw(st.integers(1, 24)), prefill_size, rank, draw(padding)), 1 << 20, 1
    )
    dst = Memory(
        model, Rank(draw(st.integers(1, 24)), decode_size, peer, draw(padding)), 1 << 46, 2
    )
    first = draw(st.integers(0, model.layers - 1))
    layers = range(first, draw(st.integers(first + 1, model.layers)))
    pairs = draw(ids(6, src.side.blocks, dst.side.blocks))
    return src, dst, pairs, layers


@settings(deadline=None, max_examples=300)
@given(writes(), st.data())
def test_a_plan_writes_exactly_the_right_bytes(write, data):
    src, dst, pairs, layers = write
    local = data.draw(containers([s for s, _ in pairs]))
    remote = data.draw(containers([d for _, d in pairs]))
    wanted = expected(src, dst, pairs, layers)

    made = plan_extents(src.layout(), dst.layout(), local, remote, layers.start, len(layers))
    execute(made, src, dst)

    assert dst.regions == wanted


@settings(deadline=None, max_examples=200)
@given(writes())
def test_a_plan_leaves_no_neighbours_apart(write):
    src, dst, pairs, layers = write
    local, remote = [s for s, _ in pairs], [d for _, d in pairs]

    made = plan_extents(src.layout(), dst.layout(), local, remote, layers.start, len(layers))

    for (a_src, a_dst, a_bytes, a_region), (b_src, b_dst, _, b_region) in itertools.pairwise(made):
        touching = a_src + a_bytes == b_src and a_dst + a_bytes == b_dst
        assert not (touching and a_region == b_region)
    assert [e[3] for e in made] == sorted(e[3] for e in made)


@settings(deadline=None, max_examples=200)
@given(writes(), st.data())
def test_one_bad_id_among_many_refuses_the_whole_write(write, data):
    src, dst, pairs, layers = write
    if not pairs:
        pairs = [(0, 0)]
    local, remote = [s for s, _ in pairs], [d for _, d in pairs]
    side, limit = data.draw(st.sampled_from([(local, src.side.blocks), (remote, dst.side.blocks)]))
    index = data.draw(st.integers(0, len(pairs) - 1))
    bad = data.draw(st.one_of(st.integers(-(2**63), -1), st.integers(limit, 2**63 - 1)))
    side[index] = bad
    name = "local" if side is local else "remote"

    with pytest.raises(ValueError, match=f"{name} block id at index {index} is {bad};"):
        plan_extents(src.layout(), dst.layout(), local, remote, layers.start, len(layers))
