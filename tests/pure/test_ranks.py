"""Who is who when decode does not declare its tensor-parallel rank."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from rdma_kv import LayoutMismatch, _core
from rdma_kv._messages import Geometry
from rdma_kv._ranks import as_seen_by_decode, as_seen_by_prefill
from rdma_kv._side import from_wire


def geometry(block_bytes: int, tp_size: int, tp_rank: int, **more: Any) -> Geometry:
    return Geometry(
        layers=2,
        block_count=8,
        tensors=[(0, block_bytes, block_bytes), (1, block_bytes, block_bytes)],
        tp_size=tp_size,
        tp_rank=tp_rank,
        **more,
    )


def shares(sizes: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(prefill size, prefill rank, decode size, decode rank) of all ranks that share a head."""
    prefill, decode = sizes
    return [(prefill, rank, decode, rank * decode // prefill) for rank in range(prefill)]


@pytest.mark.parametrize(
    ("size", "rank", "peer_size", "peer_rank"),
    [
        row
        for sizes in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (6, 2), (6, 3)]
        for row in shares(sizes)
    ],
)
def test_both_sides_find_the_same_part_of_the_block(
    size: int, rank: int, peer_size: int, peer_rank: int
) -> None:
    prefill = geometry(128, size, rank)
    decode = geometry(128 * size // peer_size, 0, 0)

    on_prefill = _core.agree(
        from_wire(prefill), from_wire(as_seen_by_prefill(decode, prefill, peer_size, peer_rank))
    )
    on_decode = _core.agree(
        from_wire(as_seen_by_decode(prefill, peer_size, peer_rank)),
        from_wire(replace(decode, tp_size=1)),
    )

    assert on_prefill == on_decode
    offset = rank % (size // peer_size) * 128
    assert on_decode == [(0, offset, 128), (0, offset, 128)]


def test_nothing_said_means_the_same_size_and_rank() -> None:
    prefill, decode = geometry(128, 4, 3), geometry(128, 0, 0)

    on_prefill = as_seen_by_prefill(decode, prefill, 0, 0)
    on_decode = as_seen_by_decode(prefill, 0, 0)

    assert (on_prefill.tp_size, on_prefill.tp_rank) == (4, 3)
    assert (on_decode.tp_size, on_decode.tp_rank) == (1, 0)


def test_a_rank_that_decode_declares_is_believed() -> None:
    decode = geometry(256, 2, 1)

    assert as_seen_by_prefill(decode, geometry(128, 4, 3), 1, 0) == decode


def test_a_prefill_that_declares_none_stays_undeclared() -> None:
    prefill = geometry(128, 0, 0)

    assert as_seen_by_decode(prefill, 0, 0) == prefill


@pytest.mark.parametrize(("prefill", "decode"), [(3, 2), (2, 4), (1, 2)])
def test_sizes_that_do_not_divide_are_refused_with_both(prefill: int, decode: int) -> None:
    with pytest.raises(LayoutMismatch, match=f"{prefill} tensor-parallel ranks .* {decode}, which"):
        as_seen_by_decode(geometry(128, prefill, 0), decode, 0)


@pytest.mark.parametrize(
    ("rank", "peer_rank"), [(r, p) for r, p in product(range(4), range(2)) if r // 2 != p]
)
def test_ranks_without_a_common_head_are_refused(rank: int, peer_rank: int) -> None:
    with pytest.raises(LayoutMismatch, match=f"rank {rank} of 4 shares no head"):
        as_seen_by_decode(geometry(128, 4, rank), 2, peer_rank)
