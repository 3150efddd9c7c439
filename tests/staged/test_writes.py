"""Staged writes from end to end: every byte in its place, over each inner link."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdma_kv import PeerLost, TransferCancelled, TransferTimeout
from support.patience import scaled
from tests.stream.peers import DecodeProcess, Prefill, Shape, eventually

SHAPES = {
    "usual": Shape(),
    "odd": Shape(block_bytes=1001, stride_bytes=1003, layers=5),
    "many layers": Shape(layers=80, blocks=16, block_bytes=512, stride_bytes=512),
    "more chunks than slots": Shape(blocks=1024, block_bytes=8192, stride_bytes=8192),
    "a slot for each block": Shape(
        layers=2, blocks=6, block_bytes=1 << 20, stride_bytes=(1 << 20) + 64
    ),
    "one tensor of single bytes": Shape(blocks=3000, block_bytes=1, stride_bytes=1, tensors=1),
    "scales": Shape(layers=3, block_bytes=36, stride_bytes=40, tensors=4),
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
EVERY_INNER = pytest.mark.parametrize("inner", ["tcp", "cma"])
LARGE = pytest.mark.parametrize(
    "shape", [Shape(blocks=2048, block_bytes=8192, stride_bytes=8192)], ids=["large"]
)


def write(peer: Any, src: Any, dst: Any, layers: range, tag: int = 0) -> Any:
    return peer.write(src, dst, layers.start, len(layers), tag, scaled(30))


@EVERY_INNER
@EVERY_SHAPE
def test_every_byte_lands_in_its_place(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    peer = prefill.open_staged(decode, inner)
    assert peer.transport == inner
    noise = np.random.default_rng(11)
    cache = decode.call("read")
    for part, layers in [(1, range(shape.layers)), (2, range(1)), (3, range(1, shape.layers))]:
        count = max(shape.blocks // part, 1)
        src = noise.permutation(shape.blocks)[:count]
        dst = noise.permutation(shape.blocks)[:count]
        cache = prefill.expected(cache, src, dst, layers)

        transfer = write(peer, src, dst, layers, tag=part)
        assert transfer.wait(scaled(30))

        assert np.array_equal(decode.call("read"), cache)
    assert [notice[0] for notice in decode.call("take_notices")] == [1, 2, 3]


@LARGE
def test_several_streams_carry_the_chunks(
    decode: DecodeProcess, prefill: Prefill, shape: Shape
) -> None:
    peer = prefill.open_staged(decode, "tcp", streams=3)
    src = np.arange(shape.blocks)

    transfers = [write(peer, src[n::4], src[n::4], range(2), tag=n + 1) for n in range(4)]
    for transfer in transfers:
        assert transfer.wait(scaled(30))

    assert [notice[0] for notice in decode.call("take_notices")] == [1, 2, 3, 4]
    assert np.array_equal(decode.call("read"), prefill.cache)


def test_a_write_of_nothing_delivers_its_notice(decode: DecodeProcess, prefill: Prefill) -> None:
    peer = prefill.open_staged(decode, "tcp")

    peer.write_wait([], [], 0, 1, 5, scaled(10))

    assert [notice[0] for notice in decode.call("take_notices")] == [5]


@EVERY_INNER
@LARGE
def test_notices_come_in_the_order_of_the_writes(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    """Large ones of many chunks among small ones of one, whose notices take another way."""
    peer = prefill.open_staged(decode, inner)
    every = np.arange(shape.blocks)

    transfers = [
        write(peer, every[: 1 if tag % 3 else None], every[: 1 if tag % 3 else None], range(2), tag)
        for tag in range(1, 31)
    ]
    for transfer in transfers:
        assert transfer.wait(scaled(60))

    assert [notice[0] for notice in decode.call("take_notices")] == list(range(1, 31))


@EVERY_INNER
@LARGE
def test_a_cancelled_write_writes_no_more(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    peer = prefill.open_staged(decode, inner)
    every = np.arange(shape.blocks)
    first = write(peer, every, every, range(2))
    second = write(peer, every, every[::-1].copy(), range(2), tag=9)

    second.cancel()
    with pytest.raises(TransferCancelled):
        second.wait(scaled(10))

    assert first.wait(scaled(30))
    before = decode.call("read")
    time.sleep(0.2)
    assert np.array_equal(decode.call("read"), before)
    assert decode.call("take_notices") == []
    peer.write_wait(every, every, 0, 2, 4, scaled(30))
    assert np.array_equal(decode.call("read"), prefill.cache)


@EVERY_INNER
@LARGE
def test_a_decode_that_stands_still_fails_the_write_and_nothing_lands_later(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    peer = prefill.open_staged(decode, inner)
    every = np.arange(shape.blocks)
    with decode.stopped():
        late = peer.write(every, every, 0, 2, 3, 0.3)
        time.sleep(1.5)  # its deadline, and the link's end
    assert eventually(late.done, scaled(20))
    assert isinstance(late.error(), TransferTimeout)

    before = decode.call("read")

    time.sleep(0.3)
    assert np.array_equal(decode.call("read"), before)
    assert decode.call("take_notices") == []
    again = prefill.open_staged(decode, inner)
    again.write_wait(every, every, 0, 2, 4, scaled(30))
    assert np.array_equal(decode.call("read"), prefill.cache)


@EVERY_INNER
@LARGE
def test_a_decode_that_is_killed_is_told_of(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    peer = prefill.open_staged(decode, inner)
    every = np.arange(shape.blocks)
    transfers = [write(peer, every, every, range(2)) for _ in range(4)]

    decode.kill()

    assert eventually(lambda: all(each.done() for each in transfers), scaled(20))
    assert isinstance(transfers[-1].error(), PeerLost)
    assert not peer.alive
    assert peer.unquiesced() == []


@EVERY_INNER
@LARGE
def test_decode_can_end_the_link_while_it_is_written(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, inner: str
) -> None:
    peer = prefill.open_staged(decode, inner)
    every = np.arange(shape.blocks)
    transfers = [write(peer, every, every, range(2)) for _ in range(8)]

    decode.call("end_epoch", prefill.engine.epoch)  # and that it is quiesced

    before = decode.call("read")
    assert eventually(lambda: all(each.done() for each in transfers), scaled(20))
    assert np.array_equal(decode.call("read"), before)
    assert isinstance(transfers[-1].error(), PeerLost)


def held(pid: int) -> tuple[int, int]:
    """Descriptors and threads."""
    process = Path(f"/proc/{pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def mapped_mib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


@EVERY_INNER
def test_connecting_again_and_again_leaves_nothing_behind(
    decode: DecodeProcess, prefill: Prefill, inner: str
) -> None:
    def connect() -> None:
        peer = prefill.open_staged(decode, inner)
        peer.write_wait([1], [2], 0, 2, 0, scaled(10))
        peer.close(scaled(5))

    pids = [os.getpid(), decode.process.pid or 0]
    for _ in range(5):
        connect()
    assert eventually(lambda: decode.call("links") == [])
    before, mapped = [held(pid) for pid in pids], [mapped_mib(pid) for pid in pids]

    for _ in range(50):
        connect()

    assert eventually(lambda: [held(pid) for pid in pids] == before, scaled(5)), before
    grown = [mapped_mib(pid) - mib for pid, mib in zip(pids, mapped, strict=True)]
    assert max(grown) < 80, "a ring has 8 MiB, and there were 50 of them"
