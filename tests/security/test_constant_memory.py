"""A decode process under ten thousand hostile messages and two hundred connections."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from rdma_kv import _messages as wire
from support.cache import Shape
from support.patience import eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire
from tests.security.test_rules_of_the_conversation import BAD

HOST = "127.0.0.1"
MESSAGES, CONNECTIONS, AT_ONCE = 10_000, 200, 20
MOST_GROWTH = 48 << 20


@pytest.fixture
def sides() -> Iterator[Wire]:
    """Communicators over tcp; decode sides live in a process of their own."""
    with PeerProcess() as process, Wire("tcp", lambda: process) as made:
        yield made


def rss_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def messages() -> Iterator[bytes]:
    """All that is bad, and all that is good but has no business here, in an order of its own."""
    here = {"epoch": 5, "peer_epoch": 6}
    stale: list[wire.Message] = [
        wire.Ping(**here, sequence=1),
        wire.Open(**here, transport="tcp"),
        wire.CloseLink(**here, link_id=1),
        wire.Bye(epoch=5, reason="x" * 1000),
    ]
    dice = random.Random(7)
    kinds = [bad for bad, _ in BAD.values()] + [wire.encode(message) for message in stale]
    while True:
        yield dice.choice(kinds)


def flood(port: str, say: Callable[[zmq.Socket[Any]], None]) -> None:
    """Ten thousand messages over two hundred connections; each waits until its answers came."""
    for _ in range(CONNECTIONS // AT_ONCE):
        context: zmq.Context[Any] = zmq.Context()
        lines = [context.socket(zmq.DEALER) for _ in range(AT_ONCE)]
        for line in lines:
            line.connect(f"tcp://{HOST}:{port}")
        for _ in range(MESSAGES // CONNECTIONS):
            for line in lines:
                say(line)
                while line.poll(0):
                    line.recv()
        # Answered only when all that came before was read.
        for line in lines:
            line.send(wire.encode(wire.Ping(epoch=1, peer_epoch=1, sequence=1)))
        for line in lines:
            assert line.poll(int(scaled(20_000)))
        context.destroy(linger=0)


def test_hostile_messages_leave_nothing_behind(sides: Wire):
    prefill, decode = sides.pair()
    pid, (_, port) = decode.pid(), decode.address
    source = messages()
    flood(port, lambda line: line.send(next(source)))  # what is allocated once is allocated now
    before = rss_of(pid)

    flood(port, lambda line: line.send(next(source)))

    assert rss_of(pid) - before < MOST_GROWTH
    prefill.write(decode.address, [1], [2], tag=1)
    decode.received(1, 10)
    assert sides.prefill(Shape()).connect(decode.address)


def test_connections_of_strangers_leave_nothing_behind_where_there_is_a_secret(
    sides: Wire, tmp_path: Path
):
    key = tmp_path / "key"
    key.write_text("a secret of enough bytes for both sides")
    key.chmod(0o600)
    prefill, decode = (
        side(Shape(), KVCACHE_AUTH_KEY_FILE=str(key)) for side in (sides.prefill, sides.decode)
    )
    assert prefill.connect(decode.address)
    pid, (_, port) = decode.pid(), decode.address
    before, descriptors = rss_of(pid), descriptors_of(pid)
    dice = random.Random(8)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00"
    curve = greeting + b"CURVE".ljust(52, b"\0")
    hello = curve + b"\x04\xc8\x05HELLO\x01\x00" + bytes(72) + dice.randbytes(120)
    said = [b"", b"\xff", greeting, curve, hello, hello + dice.randbytes(5000)]
    said += [greeting + b"NULL".ljust(52, b"\0"), dice.randbytes(10_000), b"\xff" * 200_000]

    for count in range(CONNECTIONS):
        with socket.create_connection((HOST, int(port)), timeout=scaled(10)) as line:
            with contextlib.suppress(OSError):  # it may hang up
                line.sendall(said[count % len(said)])

    eventually(lambda: descriptors_of(pid) <= descriptors, 15, "the connections are closed")
    assert rss_of(pid) - before < MOST_GROWTH
    prefill.write(decode.address, [1], [2], tag=1)
    decode.received(1, 10)
