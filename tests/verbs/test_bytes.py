"""What a link of queue pairs writes, and with how many requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.vm

ROUNDS = 5


def assert_same(prefill: Any, decode: Any, src: Any, dst: Any) -> None:
    for region in range(len(prefill.regions)):
        for s, d in zip(src, dst, strict=True):
            assert np.array_equal(prefill.block(region, s), decode.block(region, d))


@pytest.mark.parametrize("far_nic", ["rxe0", "rxe1"])
@pytest.mark.parametrize("qps", [1, 3])
@pytest.mark.parametrize("flush", [False, True])
def test_random_blocks_arrive_whole_and_nothing_else_changes(
    lab: Any, far_nic: str, qps: int, flush: bool
) -> None:
    prefill = lab.side(nic="rxe0", layers=3)
    decode = lab.side(nic=far_nic, layers=3, fill=7, remote_read=flush)
    peer = lab.join(prefill, decode, qps=qps, flush=flush)
    noise = np.random.default_rng(3)
    expected = decode.snapshot()

    for tag in range(1, ROUNDS + 1):
        count = int(noise.integers(1, 65))
        src, dst = noise.permutation(64)[:count], noise.permutation(64)[:count]
        for region, bytes_ in enumerate(expected):
            for s, d in zip(src, dst, strict=True):
                bytes_[d * 4096 : (d + 1) * 4096] = prefill.block(region, s)
        peer.write_wait(src, dst, 0, 3, tag, 20.0)

        assert decode.engine.wait_notices(tag, 1, 10.0) == 1
        assert all(map(np.array_equal, expected, decode.regions))


@pytest.mark.parametrize("qps", [1, 3])
def test_each_write_is_announced_once_however_many_share_a_tag(lab: Any, qps: int) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1")
    peer = lab.join(prefill, decode, qps=qps)

    writes = [peer.write([i % 64], [i % 64], 0, 2, 9, 20.0) for i in range(200)]
    assert all(write.wait(20.0) for write in writes)

    assert decode.engine.wait_notices(9, 200, 10.0) == 200
    assert decode.engine.take_notices() == []


def test_an_empty_write_delivers_its_notice(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1")
    peer = lab.join(prefill, decode, qps=3)

    peer.write_wait([], [], 0, 2, 2**32 - 1, 20.0)

    assert decode.engine.wait_notices(2**32 - 1, 1, 10.0) == 1


def test_without_a_tag_nothing_is_announced(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1", fill=7)
    peer = lab.join(prefill, decode, qps=3)

    peer.write_wait([1], [2], 0, 2, 0, 20.0)
    peer.close(5.0)

    assert_same(prefill, decode, [1], [2])
    assert decode.engine.take_notices() == []


def test_notices_survive_an_end_right_after_them(lab: Any) -> None:
    for _ in range(10):
        prefill, decode = lab.side(), lab.side(nic="rxe1")
        peer = lab.join(prefill, decode, qps=3)

        peer.write_wait([1], [2], 0, 2, 5, 20.0)
        peer.close(5.0)

        assert decode.engine.wait_notices(5, 1, 5.0) == 1


def test_scattered_sources_of_remote_neighbours_share_a_request(lab: Any) -> None:
    prefill, decode = lab.side(layers=1), lab.side(nic="rxe1", layers=1, fill=7)
    peer = lab.join(prefill, decode)
    src = list(range(62, -2, -2))  # 32 blocks, no two of them neighbours

    peer.write_wait(src, list(range(32)), 0, 1, 0, 20.0)

    assert_same(prefill, decode, src, range(32))
    assert peer.counters()["work_requests"] == 2 * 32 / 16  # K and V, 16 sources a request


def test_only_the_last_request_of_a_chain_completes(lab: Any) -> None:
    prefill, decode = lab.side(layers=8), lab.side(nic="rxe1", layers=8)
    peer = lab.join(prefill, decode)
    src = [2 * i % 64 + 2 * i // 64 for i in range(64)]

    peer.write_wait(src, src[::-1], 0, 8, 1, 20.0)

    counters = peer.counters()
    assert counters["work_requests"] >= 8 * 2 * 60
    assert counters["completions"] == counters["posts"] <= counters["work_requests"] / 32


def test_an_extent_above_the_largest_message_is_cut(lab: Any) -> None:
    big = 5 << 20  # two neighbours are one extent of 10 MiB; soft-RoCE takes 8 MiB at once
    prefill = lab.side(layers=1, blocks=2, block_bytes=big)
    decode = lab.side(nic="rxe1", layers=1, blocks=2, block_bytes=big, fill=7)
    peer = lab.join(prefill, decode)

    peer.write_wait([0, 1], [0, 1], 0, 1, 1, 60.0)

    assert decode.engine.wait_notices(1, 1, 10.0) == 1
    assert_same(prefill, decode, [0, 1], [0, 1])
    assert peer.counters()["work_requests"] == 4


@pytest.mark.parametrize("flush", [False, True])
def test_regions_that_a_nic_cannot_take_whole_are_registered_in_chunks(
    lab: Any, flush: bool
) -> None:
    # Blocks of 3 pages in chunks of 16: most chunks end within a block.
    shape = {"layers": 1, "blocks": 64, "block_bytes": 3 * 4096}
    prefill = lab.side(**shape, most_mr_bytes=1 << 17)
    decode = lab.side(nic="rxe1", **shape, most_mr_bytes=1 << 16, fill=7, remote_read=flush)
    peer = lab.join(prefill, decode, qps=2, flush=flush)
    order = np.random.default_rng(5).permutation(64)

    peer.write_wait(order, np.arange(64), 0, 1, 1, 20.0)

    assert decode.engine.wait_notices(1, 1, 10.0) == 1
    assert len(decode.rail.rkeys) == 2 * 12
    assert_same(prefill, decode, order, range(64))
