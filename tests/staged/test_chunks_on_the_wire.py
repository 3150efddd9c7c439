"""Decode's end of a staged link against a sender that is not our code."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest

from tests.stream import wire
from tests.stream.peers import HOST, DecodeProcess, Prefill, Ring, Shape, eventually

EPOCH_OF_TEST = 78
GRANULE = 4096


class Sender:
    """An inner link of tcp, and the stream behind it."""

    def __init__(
        self, decode: DecodeProcess, *, opens_last: bool = True, last_buffer_bytes: int = 0
    ) -> None:
        link_id, token, self.ring = decode.call("accept_staged", "tcp", EPOCH_OF_TEST, 1)
        self._transfer = 0
        streams = []
        for index in range(2 if opens_last else 1):
            stream = socket.socket()
            stream.settimeout(5)
            if index == 1 and last_buffer_bytes:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, last_buffer_bytes)
            stream.connect((HOST, decode.port))
            stream.sendall(wire.hello(link_id, token, decode.epoch, index=index, count=2))
            assert wire.read_frame(stream) == (wire.WELCOME, 0, struct.pack("<Q", decode.epoch))
            streams.append(stream)
        self.inner, self.last = streams[0], streams[-1]

    def put(self, chunk: bytes, slot: int = 0, number: int | None = None) -> None:
        """Writes a chunk into a slot, as the inner link does."""
        _, _, slot_bytes, _ = self.ring
        granules = -(-len(chunk) // GRANULE)
        self._transfer += 1
        number = slot + 1 if number is None else number
        run = (slot * slot_bytes // GRANULE, granules)
        self.inner.sendall(wire.write(self._transfer, [run], tag=number))
        self.inner.sendall(
            wire.frame(wire.DATA, self._transfer, chunk.ljust(granules * GRANULE, b"\0"))
        )

    def is_ended(self) -> bool:
        return wire.is_closed(self.last) and wire.is_closed(self.inner)


def chunk(
    runs: list[tuple[int, int]],
    payload: bytes = b"",
    *,
    serial: int = 7,
    tag: int = 0,
    layers: tuple[int, int] = (0, 1),
    run_count: int | None = None,
    rest: int = 0,
) -> bytes:
    count = len(runs) if run_count is None else run_count
    head = struct.pack("<QIIIIQ", serial, tag, *layers, count, rest)
    table = head + b"".join(struct.pack("<II", *run) for run in runs)
    return table.ljust(-(-len(table) // 256) * 256, b"\0") + payload


def applied(number: int) -> tuple[int, int, bytes]:
    return (wire.ACK, number, struct.pack("<I", 0))


def payload_of(shape: Shape, blocks: int, layers: int = 1) -> bytes:
    size = shape.tensors * blocks * layers * shape.block_bytes
    return np.random.default_rng(5).integers(0, 256, size, np.uint8).tobytes()


def test_a_chunk_lands_in_layer_tensor_run_block_order(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode)
    data = payload_of(shape, 3, layers=2)

    sender.put(chunk([(7, 2), (2, 1)], data, serial=2**63, tag=9, layers=(0, 2)), slot=3)

    assert wire.read_frame(sender.last) == applied(2**63)
    assert [notice[0] for notice in decode.call("take_notices")] == [9]
    expected = shape.empty_cache()
    blocks = np.frombuffer(data, np.uint8).reshape(shape.layers * shape.tensors, 3, -1)
    expected[:, [7, 8, 2]] = blocks
    assert np.array_equal(decode.call("read"), expected)


@pytest.mark.parametrize("shape", [Shape(block_bytes=1001, stride_bytes=1001)], ids=["1001"])
def test_each_tensor_begins_at_a_multiple_of_16(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode)
    key, value = b"k" * 2002, b"v" * 2002

    sender.put(chunk([(1, 2)], key.ljust(2016, b"?") + value))

    assert wire.read_frame(sender.last) == applied(7)
    cache = decode.call("read")
    assert cache[0, 1:3].tobytes() == key
    assert cache[1, 1:3].tobytes() == value
    assert not cache[:, 0].any()
    assert not cache[:, 3:].any()


def test_a_slot_is_used_again_after_its_answer(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode)

    for block in range(20):
        sender.put(chunk([(block, 1)], bytes([block + 1]) * 8192, serial=block))
        assert wire.read_frame(sender.last) == applied(block)

    cache = decode.call("read")
    assert [int(cache[1, block, -1]) for block in range(20)] == list(range(1, 21))


def test_a_notice_comes_on_the_last_stream_too(decode: DecodeProcess) -> None:
    sender = Sender(decode)

    sender.last.sendall(wire.frame(wire.NOTICE, 5, struct.pack("<I", 6)))

    assert wire.read_frame(sender.last) == applied(5)
    assert [notice[0] for notice in decode.call("take_notices")] == [6]


def test_the_end_is_answered(decode: DecodeProcess) -> None:
    sender = Sender(decode)

    sender.last.sendall(wire.frame(wire.END))

    assert wire.read_frame(sender.last) == (wire.ENDED, 0, b"")
    assert sender.is_ended()


@pytest.mark.parametrize("which", ["inner", "last"])
def test_either_stream_that_closes_ends_the_link(decode: DecodeProcess, which: str) -> None:
    sender = Sender(decode)

    getattr(sender, which).close()

    other = sender.last if which == "inner" else sender.inner
    assert wire.is_closed(other)
    assert eventually(lambda: decode.call("links") == [])


SENSELESS = {
    "no runs": chunk([]),
    "no layers": chunk([(0, 1)], layers=(0, 0)),
    "a block beyond the last": chunk([(63, 2)]),
    "a run of nothing": chunk([(0, 0)]),
    "a block twice": chunk([(1, 2), (2, 1)]),
    "a layer beyond the last": chunk([(0, 1)], layers=(1, 2)),
    "layers that wrap around": chunk([(0, 1)], layers=(2**32 - 1, 2)),
    "more runs than the slot holds": chunk([(0, 1)], run_count=2**32 - 1),
    "runs that leave no room": chunk([(0, 1)], run_count=(1 << 17) - 4),
    "something where zero belongs": chunk([(0, 1)], rest=1),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_a_senseless_chunk_ends_its_link_and_touches_nothing(
    decode: DecodeProcess, prefill: Prefill, shape: Shape, what: str
) -> None:
    neighbour = prefill.open_staged(decode, "tcp")
    sender = Sender(decode)

    sender.put(SENSELESS[what])

    assert sender.is_ended()
    assert not decode.call("read").any()
    neighbour.write_wait([1], [2], 0, 2, 0, 10.0, False, (0, 0))
    assert decode.call("read")[:, 2].all()


@pytest.mark.parametrize(
    "shape", [Shape(blocks=512, block_bytes=4096)], ids=["512 blocks of 4 KiB"]
)
def test_a_payload_that_leaves_its_slot_is_refused(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode)
    _, _, slot_bytes, _ = sender.ring
    too_many = slot_bytes // (shape.tensors * shape.block_bytes)

    sender.put(chunk([(0, too_many)]))

    assert sender.is_ended()
    assert not decode.call("read").any()


@pytest.mark.parametrize("number", [9, 2**32 - 1])
def test_a_slot_that_is_not_there_is_refused(
    decode: DecodeProcess, shape: Shape, number: int
) -> None:
    sender = Sender(decode)

    sender.put(chunk([(0, 1)], payload_of(shape, 1)), number=number)

    assert sender.is_ended()
    assert not decode.call("read").any()


def test_a_chunk_before_the_last_stream_is_refused(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode, opens_last=False)

    sender.put(chunk([(0, 1)], payload_of(shape, 1)))

    assert wire.is_closed(sender.inner)
    assert not decode.call("read").any()


@pytest.mark.parametrize("kind", [wire.WRITE, wire.ABORT, wire.ACK, wire.ENDED, 99])
def test_other_frames_on_the_last_stream_end_the_link(decode: DecodeProcess, kind: int) -> None:
    sender = Sender(decode)

    sender.last.sendall(wire.frame(kind, 1, bytes(24) if kind == wire.WRITE else b""))

    assert sender.is_ended()


@pytest.mark.parametrize("shape", [Shape(block_bytes=1, stride_bytes=1)], ids=["small"])
def test_who_never_reads_its_answers_is_let_go(decode: DecodeProcess, shape: Shape) -> None:
    sender = Sender(decode, last_buffer_bytes=4096)
    sender.inner.settimeout(20)
    data = chunk([(0, 1)], bytes(17))

    def flood() -> None:
        for _ in range(400_000):
            sender.put(data)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        flood()


def test_the_ring_is_as_large_as_told(decode: DecodeProcess) -> None:
    ring: Ring = Sender(decode).ring

    assert ring[1:] == (8, 1 << 20, False)
