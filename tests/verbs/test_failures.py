"""What breaks a link, what it says then, and that nothing lands afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import rdma_kv

pytestmark = pytest.mark.vm

ALL = list(range(64))


def changes_within(side: Any, seconds: float) -> bool:
    before = side.snapshot()
    time.sleep(seconds)
    return not all(map(np.array_equal, before, side.regions))


@contextmanager
def lost_packets(interface: str) -> Iterator[None]:
    """Nothing that this interface sends arrives."""
    subprocess.run(
        ["tc", "qdisc", "add", "dev", interface, "root", "netem", "loss", "100%"], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", interface, "root"], check=True)


@pytest.mark.parametrize("qps", [1, 3])
def test_a_wrong_rkey_is_named_as_the_first_cause(lab: Any, qps: int) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1", fill=7)
    wrong = [key ^ 0x5A00 for key in decode.rail.rkeys]
    peer = lab.join(prefill, decode, qps=qps, rkeys=wrong)

    with pytest.raises(rdma_kv.TransferError) as caught:
        peer.write_wait(ALL, ALL[::-1], 0, 2, 5, 20.0)

    for part in ("remote access error", "rkey", "rxe0 port 1", "GID 1", "10.0.0.2", "decode"):
        assert part in str(caught.value)
    assert "Flushed" not in str(caught.value)
    assert not peer.alive
    assert not changes_within(decode, 0.2)
    assert all((region == 7).all() for region in decode.regions)
    assert decode.engine.take_notices() == []


def test_a_flush_reads_and_so_needs_the_right_to(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1", remote_read=False)
    peer = lab.join(prefill, decode, flush=True)

    with pytest.raises(rdma_kv.TransferError, match=r"remote (access|invalid request) error"):
        peer.write_wait([1], [2], 0, 2, 5, 20.0)

    assert decode.engine.take_notices() == []


def test_a_network_that_loses_everything_is_a_lost_peer(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1")
    peer = lab.join(prefill, decode)

    with lost_packets("v0"), pytest.raises(rdma_kv.PeerLost) as caught:
        peer.write_wait([1], [2], 0, 2, 5, 60.0)

    for part in ("transport retry counter exceeded", "path MTU", "firewall", "rxe0 port 1 GID 1"):
        assert part in str(caught.value)


@pytest.mark.parametrize("qps", [1, 3])
def test_after_a_deadline_nothing_lands_any_more(lab: Any, qps: int) -> None:
    prefill, decode = lab.side(layers=16), lab.side(nic="rxe1", layers=16, fill=7)
    peer = lab.join(prefill, decode, qps=qps)

    with pytest.raises(rdma_kv.TransferTimeout):
        peer.write_wait(ALL, ALL[::-1], 0, 16, 5, 0.005)

    assert not changes_within(decode, 0.5)
    assert decode.engine.take_notices() == []


@pytest.mark.parametrize("qps", [1, 3])
def test_a_link_that_is_broken_in_the_middle_is_quiet_when_it_says_so(lab: Any, qps: int) -> None:
    prefill, decode = lab.side(layers=16), lab.side(nic="rxe1", layers=16, fill=7)
    peer = lab.join(prefill, decode, qps=qps)

    write = peer.write(ALL, ALL[::-1], 0, 16, 5, 20.0)
    peer.lose("the test says so")

    with pytest.raises(rdma_kv.PeerLost, match="the test says so"):
        write.wait(20.0)
    assert not changes_within(decode, 0.5)
    assert any((region == 7).any() for region in decode.regions), "it was over before it broke"
    assert decode.engine.take_notices() == []


@pytest.mark.parametrize("qps", [1, 3])
def test_a_cancelled_write_leaves_the_link_usable(lab: Any, qps: int) -> None:
    prefill, decode = lab.side(layers=16), lab.side(nic="rxe1", layers=16, fill=7)
    peer = lab.join(prefill, decode, qps=qps)

    write = peer.write(ALL, ALL[::-1], 0, 16, 5, 20.0)
    write.cancel()
    with pytest.raises(rdma_kv.TransferCancelled):
        write.wait(20.0)

    assert not changes_within(decode, 0.5)
    assert decode.engine.take_notices() == []
    peer.write_wait(ALL, ALL, 0, 16, 6, 60.0)
    assert decode.engine.wait_notices(6, 1, 10.0) == 1
    assert all(map(np.array_equal, prefill.regions, decode.regions))


def test_when_decode_ends_a_link_prefill_learns_of_it(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1", fill=7)
    peer = lab.join(prefill, decode)

    decode.engine.end_epoch(prefill.engine.epoch, "the test says so")
    with pytest.raises(rdma_kv.PeerLost):
        peer.write_wait(ALL, ALL, 0, 2, 5, 20.0)

    assert all((region == 7).all() for region in decode.regions)
    assert lab.count("qp", "rxe1") == 0


def test_a_lost_link_can_be_opened_again_at_once(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1", fill=7)
    lab.join(prefill, decode).lose("the test says so")

    peer = lab.join(prefill, decode)
    peer.write_wait(ALL, ALL, 0, 2, 5, 20.0)

    assert decode.engine.wait_notices(5, 1, 10.0) == 1
