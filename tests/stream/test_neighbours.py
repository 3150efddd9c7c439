"""What the writes to one peer may not do to the others."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest

from tests.stream import wire
from tests.stream.peers import HOST, DecodeProcess, Prefill, Shape, eventually


@pytest.mark.parametrize(
    "shape",
    [Shape(layers=1, blocks=14, block_bytes=256 << 10, stride_bytes=256 << 10)],
    ids=["3.5 MiB"],
)
def test_a_long_queue_to_one_peer_does_not_hold_up_another(
    decode: DecodeProcess, prefill: Prefill, shape: Shape
) -> None:
    """Each write is short; there are many of them."""
    busy = prefill.open(decode, "cma")
    with contextlib.closing(Other(shape)) as neighbour:
        other = prefill.open(neighbour.process, "tcp")
        blocks = np.arange(12)  # 3 MiB, copied more slowly than the next write is begun
        queue = [busy.write(blocks, blocks, 0, 1, 0, 60.0) for _ in range(2000)]

        transfer = other.write([1], [2], 0, 1, 1, 60.0)

        # Not waited for, which would drive it: the engine's own thread must find the time.
        assert eventually(transfer.done, 60.0)
        assert not queue[-1].done(), "it had to wait for the whole queue"
        for earlier in queue:
            earlier.wait()


def test_strangers_of_one_address_crowd_out_nobody_of_another(decode: DecodeProcess) -> None:
    """More of them than the data port keeps waiting; the honest one came first, and is slow."""
    link_id, token = decode.call("accept", "tcp", 77, 1)
    with contextlib.ExitStack() as stack:
        honest = stack.enter_context(socket.create_connection((HOST, decode.port), timeout=20))
        for _ in range(200):
            stranger = socket.create_connection(
                (HOST, decode.port), timeout=20, source_address=("127.0.0.2", 0)
            )
            stack.enter_context(stranger)

        honest.sendall(wire.hello(link_id, token, decode.epoch))

        assert wire.read_frame(honest)[0] == wire.WELCOME


class Other:
    def __init__(self, shape: Shape) -> None:
        self.process = DecodeProcess(shape)

    def close(self) -> None:
        self.process.stop()
