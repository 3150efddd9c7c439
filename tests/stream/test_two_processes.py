"""tcp and cma between two real processes, on the bare core."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import rdma_kv
from rdma_kv import _core
from tests.stream.peers import DecodeProcess, Prefill, Shape, error_of, eventually


@dataclass(frozen=True)
class Path:
    transport: str
    streams: int = 1


PATHS = [Path("tcp"), Path("tcp", 4), Path("cma")]
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.transport}{p.streams}")


def is_lost(peer: Any) -> bool:
    return not peer.alive


# Blocks that touch, blocks with gaps, blocks of odd sizes, blocks larger than a DATA frame.
SHAPES = {
    "dense": Shape(layers=3, blocks=300, block_bytes=4096, stride_bytes=4096),
    "gaps": Shape(layers=3, blocks=300, block_bytes=6000, stride_bytes=6400),
    "odd": Shape(layers=2, blocks=2000, block_bytes=37, stride_bytes=41, tensors=1),
    "large": Shape(layers=1, blocks=5, block_bytes=2_100_001, stride_bytes=2_100_001),
}


@each_path
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_random_maps_are_byte_exact(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, path: Path
) -> None:
    rng = np.random.default_rng(11)
    peer = prefill.open(decode, path.transport, path.streams)
    have = decode.call("read")
    for tag in range(1, 13):
        count = int(rng.integers(1, shape.blocks + 1))
        src, dst = (rng.permutation(shape.blocks)[:count] for _ in range(2))
        if tag % 3 == 0:  # long runs
            src, dst = (np.arange(count) for _ in range(2))
        first = int(rng.integers(0, shape.layers))
        layers = range(first, int(rng.integers(first + 1, shape.layers + 1)))
        have = prefill.expected(have, src, dst, layers)

        peer.write(src, dst, first, len(layers), tag, 20.0).wait()

        assert decode.call("wait_notices", tag, 1, 0.0) == 1
        assert np.array_equal(decode.call("read"), have)


@each_path
@pytest.mark.parametrize("shape", [Shape(layers=2, blocks=1024, block_bytes=16384,
                                         stride_bytes=16384)], ids=["64 MiB"])  # fmt: skip
def test_a_cancelled_write_stops_and_the_link_goes_on(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, path: Path
) -> None:
    peer = prefill.open(decode, path.transport, path.streams)
    chance = random.Random(4)
    everything = np.random.default_rng(2).permutation(shape.blocks)
    cancelled = []
    for tag in range(1, 25):
        transfer = peer.write(everything, everything, 0, shape.layers, tag, 20.0)
        time.sleep(chance.uniform(0, 0.015))
        transfer.cancel()
        if why := error_of(transfer):
            assert "cancelled" in why
            cancelled.append(tag)
        if tag % 8 == 0:
            # Another pattern than any write under way could bring: nothing may land over it.
            prefill.cache ^= 0xFF
            some = everything[:100]
            before = decode.call("read")
            peer.write(some, some, 0, 1, 1000, 20.0).wait()
            after = prefill.expected(before, some, some, range(1))
            assert np.array_equal(decode.call("read"), after)

    assert peer.alive
    assert cancelled, "no write was slow enough to be cancelled: the test proves nothing"
    noticed = [tag for tag, _, _ in decode.call("take_notices") if tag != 1000]
    assert sorted(noticed + cancelled) == list(range(1, 25))


@each_path
def test_many_writes_may_be_under_way(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, path: Path
) -> None:
    peer = prefill.open(decode, path.transport, path.streams)

    transfers = [peer.write([i % 64], [i % 64], i % 2, 1, 5, 20.0) for i in range(2000)]

    for transfer in transfers:
        transfer.wait()
    assert decode.call("wait_notices", 5, 2000, 0.0) == 2000


@each_path
@pytest.mark.parametrize("shape", [SHAPES["large"]], ids=["large"])
def test_a_killed_decode_is_lost_at_once(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, path: Path
) -> None:
    peer = prefill.open(decode, path.transport, path.streams)
    blocks = list(range(shape.blocks))
    transfers = [peer.write(blocks, blocks, 0, 1, 5, 20.0) for _ in range(100)]
    began = time.monotonic()

    decode.kill()

    assert path.transport in error_of(transfers[-1])
    assert time.monotonic() - began < 2
    assert not peer.alive


@each_path
def test_an_idle_link_notices_that_decode_is_gone(
    decode: DecodeProcess, prefill: Prefill, path: Path
) -> None:
    peer = prefill.open(decode, path.transport, path.streams)

    decode.kill()

    assert eventually(lambda: not peer.alive)
    assert "ended" in str(peer.failure())


@each_path
def test_nothing_lands_after_decode_ended_the_link(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, path: Path
) -> None:
    blocks = list(range(shape.blocks))
    for _ in range(20):
        peer = prefill.open(decode, path.transport, path.streams)
        transfers = [peer.write(blocks, blocks, 0, 2, 0, 5.0) for _ in range(20)]

        decode.call("end_epoch", prefill.engine.epoch)
        at_the_end = decode.call("read")
        prefill.cache ^= 0xFF

        assert eventually(partial(is_lost, peer))
        for transfer in transfers:
            assert "ended" in (error_of(transfer) or "ended")
        assert np.array_equal(decode.call("read"), at_the_end)


def test_a_stopped_tcp_decode_is_never_called_quiesced(
    decode: DecodeProcess, prefill: Prefill
) -> None:
    peer = prefill.open(decode, "tcp")

    with decode.stopped():
        transfer = peer.write([1], [2], 0, 1, 3, 0.2)

        assert "do not reuse the blocks, on either side" in error_of(transfer)


def test_a_write_of_cma_needs_no_help_from_a_stopped_decode(
    decode: DecodeProcess, prefill: Prefill
) -> None:
    peer = prefill.open(decode, "cma")

    with decode.stopped():
        peer.write([1], [2], 0, 1, 0, 5.0).wait()

    assert np.array_equal(decode.call("read")[0, 2], prefill.cache[0, 1])


BAD_OFFERS = {
    "another host": ({"boot_id": "00000000-0000-0000-0000-000000000000"}, "another host"),
    "another pid namespace": ({"pid_namespace": 1}, "another pid namespace"),
    "no such process": ({"pid": 2**22 - 1}, "it has ended"),
    "pid 0": ({"pid": 0}, "cannot be a peer's"),
    "an address that is not mapped": ({"probe_address": 4096}, "not mapped"),
    "another nonce": ({"probe_nonce": bytes(16)}, "is not the one"),
}


@pytest.mark.parametrize("name", BAD_OFFERS)
def test_cma_says_why_it_cannot_reach_a_peer(
    decode: DecodeProcess, prefill: Prefill, name: str
) -> None:
    change, why = BAD_OFFERS[name]
    ticket = decode.call("accept", "cma", prefill.engine.epoch)
    remote = prefill.remote(decode, ticket, decode.call("bases"))

    with pytest.raises(rdma_kv.TransportUnavailable, match=why):
        _core.cma_open(prefill.engine, remote, decode.call("cma_offer") | change)


def test_opening_says_what_is_wrong_with_the_port(decode: DecodeProcess, prefill: Prefill) -> None:
    ticket = decode.call("accept", "tcp", prefill.engine.epoch, 1)
    remote = prefill.remote(decode, ticket, [])
    decode.call("close")

    with pytest.raises(rdma_kv.HandshakeError, match=r"Connection refused.*decode process running"):
        _core.tcp_open(prefill.engine, remote, 1)
