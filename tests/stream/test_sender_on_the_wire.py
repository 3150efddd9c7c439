"""The sender against a receiver that is not our code, and does not keep to the protocol."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rdma_kv import _core
from tests.stream import wire
from tests.stream.peers import HOST, Prefill, Shape, error_of, eventually

EPOCH = 99
APPLIED, ABORTED = 0, 1


class Receiver:
    """Welcomes one stream, and then reads nothing that it is not told to."""

    def __init__(self) -> None:
        self.server = socket.socket()
        # Both ends' buffers become small: a write must not disappear whole into the kernel.
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.server.bind((HOST, 0))
        self.server.listen()
        self.server.settimeout(10)
        self.stream: socket.socket | None = None

    def welcome(self) -> None:
        self.stream, _ = self.server.accept()
        self.stream.settimeout(10)
        assert wire.read_frame(self.stream)[0] == wire.HELLO
        self.stream.sendall(wire.frame(wire.WELCOME, 0, struct.pack("<Q", EPOCH)))

    def open(self, prefill: Prefill) -> Any:
        """The link to this receiver."""
        port = self.server.getsockname()[1]
        remote = _core.RemoteEnd(
            prefill.engine, "receiver", HOST, port, EPOCH, 1, bytes(16), prefill.shape.geometry,
            [], 10.0,
        )  # fmt: skip
        welcoming = threading.Thread(target=self.welcome)
        welcoming.start()
        peer = _core.tcp_open(prefill.engine, remote, 1)
        welcoming.join()
        return peer

    def read_write(self) -> int:
        """Takes in the WRITE and the header of its first DATA; returns its transfer id."""
        assert self.stream is not None
        kind, transfer, _ = wire.read_frame(self.stream)
        assert kind == wire.WRITE
        assert wire.read_exactly(self.stream, 16)[0] == wire.DATA
        return transfer

    def acknowledge(self, transfer: int, status: int) -> None:
        assert self.stream is not None
        self.stream.sendall(wire.frame(wire.ACK, transfer, struct.pack("<I", status)))

    def close(self) -> None:
        self.server.close()
        if self.stream:
            self.stream.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


# Of one DATA frame, so that a cancelled write still sends all of it; and of many, so that it stops.
ONE_FRAME = Shape(layers=1, blocks=1, block_bytes=1 << 20, stride_bytes=1 << 20, tensors=1)
MANY_FRAMES = Shape(layers=1, blocks=32, block_bytes=1 << 20, stride_bytes=1 << 20, tensors=1)


@pytest.mark.parametrize(
    ("shape", "status"), [(ONE_FRAME, APPLIED), (MANY_FRAMES, ABORTED)], ids=["applied", "aborted"]
)
def test_an_answer_to_what_was_not_sent_yet_ends_the_link_and_not_the_transfer(
    receiver: Receiver, prefill: Prefill, shape: Shape, status: int
) -> None:
    peer = receiver.open(prefill)
    blocks = list(range(shape.blocks))
    transfer = peer.write(blocks, blocks, 0, 1, 0, 30.0)
    number = receiver.read_write()
    transfer.cancel()

    receiver.acknowledge(number, status)

    assert eventually(lambda: not peer.alive)
    assert f"an ACK (status {status}) for transfer {number}" in str(peer.failure())
    receiver.close()
    assert error_of(transfer)
