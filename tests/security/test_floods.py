"""What a peer that sends without end can make the other side keep, or wait for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdma_kv import PeerLost, _core
from rdma_kv import _messages as wire
from rdma_kv._heartbeat import Heartbeat
from support.patience import eventually, scaled
from tests.stream import wire as frames
from tests.stream.peers import Shape

HOST = "127.0.0.1"
MOST_WAITING = 1 << 15  # of one process
MOST_OF_HOST = 1 << 17
SHAPE = Shape(layers=1, blocks=4, block_bytes=64, stride_bytes=64, tensors=1)


class Node:
    """An engine on memory of its own."""

    def __init__(self) -> None:
        self.cache = SHAPE.empty_cache()
        self.engine = _core.Engine(SHAPE.layout(self.cache))
        self.port = self.engine.listen(HOST, 0)


@pytest.fixture
def decode() -> Iterator[Node]:
    node = Node()
    yield node
    node.engine.close(1.0)


def opened(node: Node, origin: str, transport: str, epoch: int = 7) -> socket.socket:
    """A stream of a new link, on which the test says what it likes."""
    accept = getattr(_core, f"{transport}_accept")
    last = 1 if transport == "tcp" else 0  # streams, or the pid of the sender
    ticket = accept(node.engine, origin, epoch, SHAPE.geometry, last)
    line = socket.create_connection((HOST, node.port), timeout=scaled(10))
    line.sendall(frames.hello(ticket.link_id, ticket.token, node.engine.epoch))
    assert frames.read_frame(line)[0] == frames.WELCOME
    return line


class Flood:
    """Sends notices as fast as they are taken, and counts the answers."""

    def __init__(self, line: socket.socket, count: int) -> None:
        self.acknowledged = 0
        self._line = line
        self._sent = b"".join(
            frames.frame(frames.NOTICE, i, struct.pack("<I", 9)) for i in range(1, count + 1)
        )
        for body in (self._send, self._read):
            threading.Thread(target=body, daemon=True).start()

    def _send(self) -> None:
        self._line.sendall(self._sent)

    def _read(self) -> None:
        got = 0
        with contextlib.suppress(OSError):  # the test has closed it
            while more := self._line.recv(1 << 16):
                got += len(more)
                self.acknowledged = got // 20

    def has_stalled(self, at_least: int) -> bool:
        """Whether it got so far, and then no further for a while."""
        before = self.acknowledged
        time.sleep(0.3)
        return before >= at_least and self.acknowledged == before


@pytest.mark.parametrize("transport", ["tcp", "cma"])
def test_notices_that_nobody_takes_hold_up_their_sender_and_get_lost_never(
    decode: Node, transport: str
) -> None:
    count = MOST_WAITING + 40_000

    flood = Flood(opened(decode, "10.0.0.1 (pid 1)", transport), count)

    eventually(lambda: flood.has_stalled(MOST_WAITING), 30, "the flood is held up")
    assert flood.acknowledged <= MOST_WAITING + 1
    # Another life of the same process has no share of its own; another process has.
    again = Flood(opened(decode, "10.0.0.1 (pid 1)", transport, 8), 10)
    other = Flood(opened(decode, "10.0.0.1 (pid 2)", transport, 9), 10)
    eventually(lambda: other.acknowledged == 10, 10, "a neighbour is not held up")
    assert again.acknowledged == 0

    taken = 0
    deadline = time.monotonic() + scaled(30)
    while taken < count + 20 and time.monotonic() < deadline:
        taken += len(decode.engine.take_notices())
        time.sleep(0.001)
    assert taken == count + 20
    eventually(lambda: flood.acknowledged == count, 10, "all of it is acknowledged")
    assert again.acknowledged == 10


def test_processes_of_one_host_hold_up_no_other_host(decode: Node) -> None:
    """A peer says itself what its process number is, and may say another each time."""
    said = range(MOST_OF_HOST // MOST_WAITING + 1)

    floods = [
        Flood(opened(decode, f"10.0.0.1 (pid {pid})", "tcp", pid + 1), 2 * MOST_WAITING)
        for pid in said
    ]

    eventually(lambda: all(f.has_stalled(0) for f in floods), 60, "all are held up")
    assert MOST_OF_HOST <= sum(f.acknowledged for f in floods) <= MOST_OF_HOST + len(said)
    other = Flood(opened(decode, "10.0.0.2 (pid 1)", "tcp", 99), 10)
    eventually(lambda: other.acknowledged == 10, 10, "another host is not held up")

    taken = 0
    deadline = time.monotonic() + scaled(30)
    while taken < len(said) * 2 * MOST_WAITING + 10 and time.monotonic() < deadline:
        taken += len(decode.engine.take_notices())
        time.sleep(0.001)
    assert taken == len(said) * 2 * MOST_WAITING + 10


def test_a_link_that_ends_while_it_is_held_up_is_forgotten(decode: Node) -> None:
    flood = Flood(opened(decode, "10.0.0.1 (pid 1)", "tcp"), MOST_WAITING + 10)
    eventually(lambda: flood.has_stalled(MOST_WAITING), 30, "the flood is held up")
    for epoch in range(8, 28):
        Flood(opened(decode, "10.0.0.1 (pid 1)", "tcp", epoch), 10)
    for link_id, *_ in decode.engine.inbound_links():
        decode.engine.end_link(link_id, "ended by the test")

    taken = 0
    while more := len(decode.engine.take_notices()):
        taken += more

    assert taken >= MOST_WAITING
    later = Flood(opened(decode, "10.0.0.1 (pid 1)", "tcp", 99), 10)
    eventually(lambda: later.acknowledged == 10, 10, "there is room again")


def test_taking_by_tag_lets_a_held_up_sender_go_on(decode: Node) -> None:
    count = MOST_WAITING + 10
    flood = Flood(opened(decode, "10.0.0.1 (pid 1)", "tcp"), count)
    eventually(lambda: flood.has_stalled(MOST_WAITING), 30, "the flood is held up")

    assert decode.engine.wait_notices(9, MOST_WAITING // 2, 1.0) == MOST_WAITING // 2

    eventually(lambda: flood.acknowledged == count, 10, "it goes on")


def test_a_held_up_stream_that_is_reset_costs_no_processor_time(decode: Node) -> None:
    line = opened(decode, "10.0.0.1 (pid 1)", "tcp")
    flood = Flood(line, MOST_WAITING + 10)
    eventually(lambda: flood.has_stalled(MOST_WAITING), 30, "the flood is held up")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.shutdown(socket.SHUT_RD)
    line.close()
    before = time.process_time()

    time.sleep(0.5)

    assert time.process_time() - before < 0.25
    decode.engine.take_notices()
    eventually(lambda: decode.engine.inbound_links() == [], 10, "the link ends when it is read")


def test_lives_of_a_peer_are_not_remembered_for_ever(decode: Node) -> None:
    def live(epoch: int) -> None:
        with opened(decode, "10.0.0.1 " + "x" * 60_000, "cma", epoch) as line:
            line.sendall(frames.frame(frames.NOTICE, 1, struct.pack("<I", 9)))
            assert frames.read_frame(line)[0] == frames.ACK
        decode.engine.take_notices()

    live(1)
    before = held_bytes()
    for epoch in range(2, 2002):
        live(epoch)
        _core.drain_log()  # the lines have the name, too

    # Their names alone are 114 MiB; ended links are forgotten once a second.
    eventually(lambda: held_bytes() - before < 20 << 20, 10, "the lives are forgotten")


def held_bytes() -> int:
    """Memory of this process, without what is free in it."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class HostileDecode:
    """A data port that lets everybody in and then sends one thing for ever."""

    def __init__(self, said: bytes) -> None:
        self.port = 0
        self._said = said
        self._listening = socket.create_server((HOST, 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        line, _ = self._listening.accept()
        frames.read_frame(line)
        line.sendall(frames.frame(frames.WELCOME, 0, struct.pack("<Q", 5)))
        try:
            while True:
                line.sendall(self._said)
        except OSError:
            line.close()

    def end(self) -> None:
        self._listening.close()
        self._thread.join(scaled(10))


def link_to(hostile: HostileDecode, prefill: Node, transport: str) -> Any:
    bases = [base for base, _, _ in prefill.engine.layout.regions]
    remote = _core.RemoteEnd(
        prefill.engine, "decode", HOST, hostile.port, 5, 1, bytes(16), SHAPE.geometry, bases, 5.0
    )
    if transport == "tcp":
        return _core.tcp_open(prefill.engine, remote, 1)
    return _core.cma_open(prefill.engine, remote, _core.cma_offer(prefill.engine))


ANSWERS = {
    "acknowledgements": frames.frame(frames.ACK, 3, bytes(4)) * 3000,
    "ends": frames.frame(frames.ENDED) * 3000,
    "noise": bytes(1 << 16),
}


@pytest.mark.parametrize("said", ANSWERS)
@pytest.mark.parametrize("transport", ["tcp", "cma"])
def test_a_decode_that_answers_without_end_is_given_up_and_delays_nobody(
    transport: str, said: str
) -> None:
    hostile, prefill = HostileDecode(ANSWERS[said]), Node()

    peer = link_to(hostile, prefill, transport)

    eventually(lambda: not peer.alive, 10, "the link is given up")
    assert "stream" in str(peer.failure()) or "ACK" in str(peer.failure())
    with pytest.raises(PeerLost):
        peer.write([1], [2], 0, 1, 0, 1.0)
    started = time.monotonic()
    peer.close(0.0)
    prefill.engine.close(0.0)
    assert time.monotonic() - started < scaled(5)
    hostile.end()


class EndlessSocket:
    """Always has another message."""

    def __init__(self) -> None:
        self.read = 0

    def recv(self, flags: int) -> bytes:
        self.read += 1
        return wire.encode(wire.Pong(epoch=5, sequence=self.read))


class Nobody:
    """The parts of a control loop and of a peer that a heartbeat asks for here."""

    name, epoch = "decode", 5


def test_one_peer_that_never_stops_talking_leaves_time_for_the_others() -> None:
    endless: Any = EndlessSocket()
    nobody: Any = Nobody()

    Heartbeat(nobody, endless, nobody, 3, timeout_s=5, patience_s=0).on_readable()

    assert 0 < endless.read <= 64


def test_a_peer_that_claims_two_billion_blocks_costs_no_bitmap_of_them() -> None:
    """Of its 256 MiB each of the plans that a link keeps would have one."""
    source = np.zeros((4, 64), np.uint8)
    tensors = [(0, 64, 64)]
    prefill = _core.Layout(_core.Geometry(1, 4, tensors), [source.ctypes.data], [-1])
    claimed = _core.Layout(_core.Geometry(1, 1 << 31, tensors), [1 << 40], [-1])
    before = peak_bytes()

    extents = _core.plan_extents(prefill, claimed, [0, 1, 2], [2**31 - 1, 7, 8], 0, 1)

    assert [e[1] - (1 << 40) for e in extents] == [(2**31 - 1) * 64, 7 * 64]
    assert peak_bytes() - before < 50 << 20
    with pytest.raises(ValueError, match="remote block id 8 at index 3 comes twice"):
        _core.plan_extents(prefill, claimed, [0, 1, 2, 3], [2**31 - 1, 7, 8, 8], 0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_many_blocks_and_few_find_the_same_repetition(seed: int) -> None:
    dice = np.random.default_rng(seed)
    ids = dice.permutation(40)[:20]
    if seed % 2:
        ids = np.sort(ids)
    ids = np.insert(ids, dice.integers(len(ids) + 1), dice.choice(ids))
    source = np.zeros((64, 1), np.uint8)
    prefill = _core.Layout(_core.Geometry(1, 64, [(0, 1, 1)]), [source.ctypes.data], [-1])
    complaints = []
    for blocks in (64, (1 << 20) + 1):
        decode = _core.Layout(_core.Geometry(1, blocks, [(0, 1, 1)]), [1 << 40], [-1])
        with pytest.raises(ValueError, match="comes twice") as complaint:
            _core.plan_extents(prefill, decode, np.arange(len(ids)), ids, 0, 1)
        complaints.append(str(complaint.value))

    assert complaints[0] == complaints[1]


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
