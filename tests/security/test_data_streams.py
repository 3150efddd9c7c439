"""The data port against holders of a right token, of an old one, and of somebody else's."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.stream import wire
from tests.stream.peers import HOST, DecodeProcess, Shape, eventually
from tests.stream.test_receiver_on_the_wire import BAD_FRAMES, payload

# Blocks have a gap behind them, which nobody may write to.
GAPS = Shape(layers=2, blocks=16, block_bytes=64, stride_bytes=96)
TICKETS = 77


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    """One for all: it must outlive everything here."""
    process = DecodeProcess(GAPS)
    yield process
    process.stop()


@pytest.fixture
def decode(process: DecodeProcess) -> DecodeProcess:
    process.before = process.call("read")  # type: ignore[attr-defined]
    process.call("take_notices")
    return process


def dial(decode: DecodeProcess) -> socket.socket:
    return socket.create_connection((HOST, decode.port), timeout=5)


def hello(decode: DecodeProcess, ticket: tuple[int, bytes], **more: Any) -> bytes:
    return wire.hello(*ticket, decode.epoch, **more)


def opened(decode: DecodeProcess) -> socket.socket:
    stream = dial(decode)
    stream.sendall(hello(decode, decode.call("accept", "tcp", TICKETS, 1)))
    assert wire.read_frame(stream)[0] == wire.WELCOME
    return stream


def a_write(block: int = 3) -> bytes:
    data = payload(GAPS, 1)
    return wire.write(1, [(block, 1)]) + wire.frame(wire.DATA, 1, data)


def answer_to(decode: DecodeProcess, said: bytes) -> int:
    """The kind of the answer to a first frame; 0 when the stream is closed without one."""
    stream = dial(decode)
    stream.sendall(said)
    try:
        kind = wire.read_frame(stream)[0]
    except (EOFError, ConnectionResetError):
        return 0
    if kind != wire.WELCOME:
        assert wire.is_closed(stream)
    return kind


def untouched(decode: DecodeProcess) -> bool:
    return np.array_equal(decode.call("read"), decode.before)  # type: ignore[attr-defined]


def test_a_recorded_stream_cannot_be_played_again(decode: DecodeProcess) -> None:
    ticket = decode.call("accept", "tcp", TICKETS, 1)
    said = hello(decode, ticket) + a_write()
    stream = dial(decode)
    stream.sendall(said[: wire_bytes_of_hello(said)])
    assert wire.read_frame(stream)[0] == wire.WELCOME
    stream.sendall(wire.frame(wire.END))
    assert wire.read_frame(stream)[0] == wire.ENDED

    assert answer_to(decode, said) in (wire.REFUSED, 0)
    assert eventually(lambda: ticket[0] not in [link[0] for link in decode.call("links")])
    assert answer_to(decode, said) in (wire.REFUSED, 0)
    assert untouched(decode)


def wire_bytes_of_hello(said: bytes) -> int:
    return 16 + int(struct.unpack_from("<I", said, 4)[0])


def test_a_token_opens_no_other_link(decode: DecodeProcess) -> None:
    one, other = (decode.call("accept", "tcp", TICKETS, 1) for _ in range(2))

    assert answer_to(decode, hello(decode, (one[0], other[1])) + a_write()) in (wire.REFUSED, 0)
    assert answer_to(decode, hello(decode, (other[0], one[1])) + a_write()) in (wire.REFUSED, 0)

    assert untouched(decode)
    assert answer_to(decode, hello(decode, one)) == wire.WELCOME
    assert answer_to(decode, hello(decode, other)) == wire.WELCOME


@pytest.mark.parametrize("bit", [0, 7, 64, 127])
def test_a_token_that_differs_in_one_bit_is_refused(decode: DecodeProcess, bit: int) -> None:
    link_id, token = decode.call("accept", "tcp", TICKETS, 1)
    wrong = bytearray(token)
    wrong[bit // 8] ^= 1 << (bit % 8)

    assert answer_to(decode, hello(decode, (link_id, bytes(wrong))) + a_write()) in (
        wire.REFUSED,
        0,
    )

    assert untouched(decode)
    assert answer_to(decode, hello(decode, (link_id, token))) == wire.WELCOME


def test_a_token_of_an_ended_link_is_worth_nothing(decode: DecodeProcess) -> None:
    ticket = decode.call("accept", "tcp", TICKETS, 1)
    decode.call("end_epoch", TICKETS)

    assert answer_to(decode, hello(decode, ticket) + a_write()) in (wire.REFUSED, 0)
    assert untouched(decode)


def test_without_a_token_not_a_byte_is_accepted(decode: DecodeProcess) -> None:
    decode.call("accept", "tcp", TICKETS, 1)

    assert answer_to(decode, a_write()) == 0
    assert answer_to(decode, wire.frame(wire.NOTICE, 1, struct.pack("<I", 3))) == 0

    assert untouched(decode)
    assert decode.call("take_notices") == []


OVERLAPS = {
    "the same block twice": [(3, 1), (3, 1)],
    "a run over a block": [(0, 16), (7, 1)],
    "a block before its run": [(7, 1), (0, 16)],
    "the end of a run": [(0, 4), (3, 2)],
    "a run inside a run": [(2, 10), (5, 2)],
}
WRAPS = [(0, 2**32 - 1), (2**32 - 1, 1), (2**32 - 1, 2**32 - 1), (1, 2**32 - 1), (16, 1), (15, 2)]


@pytest.mark.parametrize("name", OVERLAPS)
def test_a_write_that_names_a_block_twice_ends_its_link(decode: DecodeProcess, name: str) -> None:
    stream = opened(decode)

    stream.sendall(wire.write(1, OVERLAPS[name], tag=3))

    assert wire.is_closed(stream)
    assert untouched(decode)
    assert decode.call("take_notices") == []


@pytest.mark.parametrize("run", WRAPS)
@pytest.mark.parametrize("among", ["alone", "behind a good one"])
def test_a_run_beyond_the_blocks_ends_its_link(
    decode: DecodeProcess, run: tuple[int, int], among: str
) -> None:
    stream = opened(decode)
    runs = [run] if among == "alone" else [(0, 1), run]

    stream.sendall(wire.write(1, runs) + wire.frame(wire.DATA, 1, payload(GAPS, 1)))

    assert wire.is_closed(stream)
    assert untouched(decode)


@pytest.mark.parametrize(
    "layers", [(0, 3), (1, 2), (2, 1), (2, 0xFFFFFFFF), (0xFFFFFFFF, 1), (0x80000000, 0x80000000)]
)
def test_layers_beyond_the_last_end_the_link(
    decode: DecodeProcess, layers: tuple[int, int]
) -> None:
    stream = opened(decode)

    stream.sendall(wire.write(1, [(0, 1)], layers=layers) + wire.frame(wire.DATA, 1, bytes(64)))

    assert wire.is_closed(stream)
    assert untouched(decode)


# The first part of it is good, and lands.
LANDS_IN_PART = {"a part twice"}


@pytest.mark.parametrize("name", sorted(BAD_FRAMES.keys() - LANDS_IN_PART))
def test_not_a_byte_of_nonsense_lands(decode: DecodeProcess, name: str) -> None:
    stream = opened(decode)

    stream.sendall(BAD_FRAMES[name](GAPS))

    assert wire.is_closed(stream)
    assert untouched(decode)


def some_frames(dice: random.Random) -> bytes:
    """A talk that is mostly right, with a number changed here and there."""

    def about(number: int) -> int:
        return dice.choice([number] * 12 + [0, number + 1, 2**31, 2**32 - 1])

    said = b""
    for transfer in range(1, 8):
        blocks = dice.sample(range(GAPS.blocks), dice.randrange(1, 6))
        runs = [(about(block), about(1)) for block in blocks]
        layers = about(dice.randrange(2)), about(1)
        said += wire.write(transfer, runs, tag=about(0), layers=layers)
        data = payload(GAPS, len(runs))
        for start in range(0, len(data), 100):
            piece = data[start : start + 100]
            kind = dice.choice([wire.DATA] * 30 + list(range(11)))
            said += wire.frame(kind, dice.choice([transfer] * 30 + [transfer + 1]), piece)
    if dice.random() < 0.3:
        at = dice.randrange(len(said))
        said = said[:at] + dice.randbytes(8) + said[at + 8 :]
    return said


def test_nothing_that_a_sender_says_lands_between_the_blocks(decode: DecodeProcess) -> None:
    for seed in range(300):
        stream = opened(decode)
        try:
            stream.sendall(some_frames(random.Random(seed)))
            stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it hung up in the middle
        assert wire.is_closed(stream)

    memory: np.ndarray[Any, Any] = decode.call("read")
    assert memory[:, :, : GAPS.block_bytes].any(), "some of it was right"
    assert not memory[:, :, GAPS.block_bytes :].any()
    assert wire.read_frame(used(opened(decode)))[0] == wire.ACK


def used(stream: socket.socket) -> socket.socket:
    stream.sendall(a_write())
    return stream
