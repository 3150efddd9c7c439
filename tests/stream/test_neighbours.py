"""What the writes to one peer may not do to the others."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from tests.stream.peers import DecodeProcess, Prefill, Shape, eventually


@pytest.mark.parametrize("shape", [Shape(layers=1, blocks=900, block_bytes=4096)], ids=["3.5 MiB"])
def test_a_long_queue_to_one_peer_does_not_hold_up_another(
    decode: DecodeProcess, prefill: Prefill, shape: Shape
) -> None:
    """Each write is short; there are many of them."""
    busy = prefill.open(decode, "cma")
    with contextlib.closing(Other(shape)) as neighbour:
        other = prefill.open(neighbour.process, "tcp")
        blocks = np.arange(shape.blocks // 2)
        queue = [busy.write(blocks, blocks, 0, 1, 0, 60.0) for _ in range(400)]

        transfer = other.write([1], [2], 0, 1, 1, 60.0)

        # Not waited for, which would drive it: the engine's own thread must find the time.
        assert eventually(transfer.done, 60.0)
        assert not queue[-1].done(), "it had to wait for the whole queue"
        for earlier in queue:
            earlier.wait()


class Other:
    def __init__(self, shape: Shape) -> None:
        self.process = DecodeProcess(shape)

    def close(self) -> None:
        self.process.stop()
