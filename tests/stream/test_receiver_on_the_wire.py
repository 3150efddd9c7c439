"""The receiver against a sender that is not our code: good frames, and every kind of bad ones."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable

import numpy as np
import pytest
from tests.stream import wire
from tests.stream.peers import HOST, DecodeProcess, Prefill, Shape, eventually

EPOCH_OF_TEST = 77


def dial(decode: DecodeProcess) -> socket.socket:
    stream = socket.create_connection((HOST, decode.port), timeout=5)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def open_link(decode: DecodeProcess, streams: int = 1) -> list[socket.socket]:
    link_id, token = decode.call("accept", "tcp", EPOCH_OF_TEST, streams)
    opened = []
    for index in range(streams):
        stream = dial(decode)
        stream.sendall(wire.hello(link_id, token, decode.epoch, index=index, count=streams))
        assert wire.read_frame(stream) == (wire.WELCOME, 0, struct.pack("<Q", decode.epoch))
        opened.append(stream)
    return opened


def payload(shape: Shape, blocks: int, seed: int = 3) -> bytes:
    return random.Random(seed).randbytes(shape.tensors * blocks * shape.block_bytes)


def applied(transfer: int) -> tuple[int, int, bytes]:
    return (wire.ACK, transfer, struct.pack("<I", 0))


def aborted(transfer: int) -> tuple[int, int, bytes]:
    return (wire.ACK, transfer, struct.pack("<I", 1))


def test_payload_lands_in_layer_tensor_run_block_order(decode: DecodeProcess, shape: Shape) -> None:
    (stream,) = open_link(decode)
    data = payload(shape, 3)

    stream.sendall(wire.write(5, [(7, 2), (2, 1)], tag=9) + wire.frame(wire.DATA, 5, data))

    assert wire.read_frame(stream) == applied(5)
    assert [notice[0] for notice in decode.call("take_notices")] == [9]
    expected = shape.empty_cache()
    blocks = np.frombuffer(data, np.uint8).reshape(shape.tensors, 3, shape.block_bytes)
    expected[0 : shape.tensors, [7, 8, 2]] = blocks
    assert np.array_equal(decode.call("read"), expected)


@pytest.mark.parametrize("piece", [1, 7, 16, 4097])
def test_frames_may_come_in_pieces_of_any_size(
    decode: DecodeProcess, shape: Shape, piece: int
) -> None:
    (stream,) = open_link(decode)
    data = payload(shape, 1)
    frames = [wire.frame(wire.DATA, 1, data[i : i + 5000]) for i in range(0, len(data), 5000)]
    sent = (
        wire.write(1, [(3, 1)], tag=4)
        + b"".join(frames)
        + wire.frame(wire.NOTICE, 2, struct.pack("<I", 6))
    )

    for start in range(0, len(sent), piece):
        stream.sendall(sent[start : start + piece])

    assert wire.read_frame(stream) == applied(1)
    assert wire.read_frame(stream) == applied(2)
    assert [notice[0] for notice in decode.call("take_notices")] == [4, 6]
    assert decode.call("read")[0 : shape.tensors, 3].tobytes() == data


def test_an_empty_write_delivers_its_notice(decode: DecodeProcess) -> None:
    (stream,) = open_link(decode)

    stream.sendall(wire.write(1, [], tag=4))

    assert wire.read_frame(stream) == applied(1)
    assert [notice[0] for notice in decode.call("take_notices")] == [4]


def test_the_notice_waits_for_the_last_part(decode: DecodeProcess, shape: Shape) -> None:
    first, second = open_link(decode, 2)
    data = payload(shape, 1)
    second.sendall(wire.write(1, [(5, 1)], tag=4, part=1, parts=2) + wire.frame(wire.DATA, 1, data))
    assert eventually(lambda: decode.call("read")[1, 5].any())
    assert decode.call("take_notices") == []

    first.sendall(wire.write(1, [(4, 1)], tag=4, part=0, parts=2) + wire.frame(wire.DATA, 1, data))

    assert wire.read_frame(first) == applied(1)
    assert [notice[0] for notice in decode.call("take_notices")] == [4]


def test_an_aborted_write_is_never_noticed(decode: DecodeProcess, shape: Shape) -> None:
    first, second = open_link(decode, 2)
    data = payload(shape, 1)
    second.sendall(wire.write(1, [(5, 1)], tag=4, part=1, parts=2) + wire.frame(wire.DATA, 1, data))
    first.sendall(
        wire.write(1, [(4, 1)], tag=4, part=0, parts=2) + wire.frame(wire.DATA, 1, data[:100])
    )

    for stream in (first, second):
        stream.sendall(wire.frame(wire.ABORT, 1))
        assert wire.read_frame(stream) == aborted(1)

    assert decode.call("take_notices") == []
    first.sendall(wire.write(2, [], tag=8))
    assert wire.read_frame(first) == applied(2)


def test_end_is_answered_and_forgets_the_link(decode: DecodeProcess) -> None:
    streams = open_link(decode, 3)

    streams[1].sendall(wire.frame(wire.END))

    assert wire.read_frame(streams[1]) == (wire.ENDED, 0, b"")
    assert all(wire.is_closed(stream) for stream in streams)
    assert eventually(lambda: decode.call("links") == [])


NO_RUNS = struct.pack("<IIIIHHI", 0, 0, 1, 0, 0, 1, 0)
BAD_FRAMES: dict[str, Callable[[Shape], bytes]] = {
    "unknown type": lambda shape: wire.frame(99),
    "type zero": lambda shape: wire.frame(0),
    "flags": lambda shape: struct.pack("<BBHIQ", wire.END, 1, 0, 0, 0),
    "reserved": lambda shape: struct.pack("<BBHIQ", wire.END, 0, 1, 0, 0),
    "hello again": lambda shape: wire.hello(1, bytes(16), 1),
    "a receiver's frame": lambda shape: wire.frame(wire.ACK, 1, bytes(4)),
    "data without write": lambda shape: wire.frame(wire.DATA, 1, b"x"),
    "data of another write": lambda shape: wire.write(1, [(0, 1)]) + wire.frame(wire.DATA, 2, b"x"),
    "empty data": lambda shape: wire.write(1, [(0, 1)]) + wire.frame(wire.DATA, 1),
    "oversized data": lambda shape: (
        wire.write(1, [(0, 64)], layers=(0, 2)) + wire.frame(wire.DATA, 1, size=(1 << 20) + 1)
    ),
    "more data than blocks": lambda shape: (
        wire.write(1, [(0, 1)]) + wire.frame(wire.DATA, 1, payload(shape, 1) + b"x")
    ),
    "write in a write": lambda shape: wire.write(1, [(0, 1)]) + wire.write(2, [(1, 1)]),
    "block out of range": lambda shape: wire.write(1, [(shape.blocks, 1)]),
    "run out of range": lambda shape: wire.write(1, [(shape.blocks - 1, 2)]),
    "run that wraps": lambda shape: wire.write(1, [(0xFFFFFFFF, 2)]),
    "empty run": lambda shape: wire.write(1, [(0, 0)]),
    "layer out of range": lambda shape: wire.write(1, [(0, 1)], layers=(shape.layers, 1)),
    "layers that wrap": lambda shape: wire.write(1, [(0, 1)], layers=(0xFFFFFFFF, 2)),
    "more runs than blocks": lambda shape: wire.write(1, [(0, 1)] * (shape.blocks + 1)),
    "run count that lies": lambda shape: wire.write(1, [(0, 1)], run_count=2),
    "huge write": lambda shape: wire.frame(wire.WRITE, 1, NO_RUNS, size=0xFFFFFFFF),
    "write of no runs size": lambda shape: wire.frame(wire.WRITE, 1, NO_RUNS + b"xyz"),
    "part out of range": lambda shape: wire.write(1, [(0, 1)], part=1, parts=1),
    "no parts": lambda shape: wire.write(1, [(0, 1)], parts=0),
    "more parts than streams": lambda shape: wire.write(1, [(0, 1)], parts=3),
    "a part twice": lambda shape: (
        2 * (wire.write(1, [(0, 1)], parts=2) + wire.frame(wire.DATA, 1, payload(shape, 1)))
    ),
    "parts that differ": lambda shape: (
        wire.write(1, [], tag=1, part=0, parts=2) + wire.write(1, [], tag=2, part=1, parts=2)
    ),
    "too many half-arrived": lambda shape: b"".join(
        wire.write(i, [], parts=2) for i in range(1, 258)
    ),
    "noise": lambda shape: random.Random(8).randbytes(4000),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_nonsense_ends_its_link_and_no_other(
    decode: DecodeProcess, shape: Shape, name: str
) -> None:
    (good,) = open_link(decode)
    bad = open_link(decode, 2)
    decode.call("log")

    bad[0].sendall(BAD_FRAMES[name](shape))

    assert all(wire.is_closed(stream) for stream in bad)
    warnings = [text for level, text in decode.call("log") if level == 30]
    assert len(warnings) == 1
    assert "the peer sent" in warnings[0]
    good.sendall(wire.write(1, [], tag=3))
    assert wire.read_frame(good) == applied(1)


def test_a_token_opens_each_stream_once(decode: DecodeProcess) -> None:
    link_id, token = decode.call("accept", "tcp", EPOCH_OF_TEST, 2)
    said = wire.hello(link_id, token, decode.epoch, index=1, count=2)
    first, again = dial(decode), dial(decode)

    first.sendall(said)
    assert wire.read_frame(first)[0] == wire.WELCOME
    again.sendall(said)

    assert wire.read_frame(again)[0] == wire.REFUSED
    assert wire.is_closed(again)


REFUSED: dict[str, tuple[Callable[[int, bytes, int], bytes], str]] = {
    "wrong token": (lambda i, t, e: wire.hello(i, bytes(16), e), "token"),
    "wrong link": (lambda i, t, e: wire.hello(i ^ 1, t, e), "token"),
    "old epoch": (lambda i, t, e: wire.hello(i, t, e ^ 1), "restarted"),
    "other version": (lambda i, t, e: wire.hello(i, t, e, version=2), "version"),
    "other count": (lambda i, t, e: wire.hello(i, t, e, count=2), "streams"),
    "index out of range": (lambda i, t, e: wire.hello(i, t, e, index=1), "streams"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_hello_is_refused_with_its_reason(decode: DecodeProcess, name: str) -> None:
    link_id, token = decode.call("accept", "tcp", EPOCH_OF_TEST, 1)
    said, reason = REFUSED[name]
    stream = dial(decode)

    stream.sendall(said(link_id, token, decode.epoch))

    kind, _, body = wire.read_frame(stream)
    assert kind == wire.REFUSED
    assert body[:2] == struct.pack("<H", len(body) - 2)
    assert reason in body[2:].decode()
    assert wire.is_closed(stream)


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(60), wire.hello(1, bytes(16), 1, magic=b"NOPE")],
    ids=["http", "zeros", "magic"],
)
def test_garbage_is_closed_without_an_answer(decode: DecodeProcess, said: bytes) -> None:
    stream = dial(decode)

    stream.sendall(said)

    with pytest.raises((EOFError, ConnectionResetError)):
        wire.read_frame(stream)


def test_half_a_hello_is_given_up_after_five_seconds(decode: DecodeProcess) -> None:
    stream = dial(decode)
    stream.settimeout(4)
    stream.sendall(wire.hello(1, bytes(16), 1)[:40])

    assert not wire.is_closed(stream)

    stream.settimeout(3)
    assert wire.is_closed(stream)


def test_silent_strangers_do_not_keep_peers_out(decode: DecodeProcess, prefill: Prefill) -> None:
    strangers = [dial(decode) for _ in range(200)]

    peer = prefill.open(decode, "tcp")

    peer.write([1], [2], 0, 1, 3, 5.0).wait()
    assert decode.call("wait_notices", 3, 1, 1.0) == 1
    del strangers


def test_a_peer_that_never_reads_answers_costs_only_its_link(
    decode: DecodeProcess, prefill: Prefill
) -> None:
    (deaf,) = open_link(decode)
    deaf.settimeout(0.5)
    notices = b"".join(wire.frame(wire.NOTICE, i, bytes(4)) for i in range(1, 20001))

    with pytest.raises(TimeoutError):
        for _ in range(100):
            deaf.sendall(notices)

    prefill.open(decode, "tcp").write([1], [2], 0, 1, 3, 5.0).wait()
    assert decode.call("wait_notices", 3, 1, 1.0) == 1
