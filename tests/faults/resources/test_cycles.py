"""Connecting and closing, a thousand times, leaves nothing behind on either side."""

from __future__ import annotations

import pytest

from support.cache import Shape
from support.flat import assert_stays_flat
from support.patience import SCALE
from support.wire import Wire

SMALL = Shape(layers=1, blocks=4)
# In the guest a cycle takes about a second while others keep the host busy.
CYCLES = round(1000 / SCALE**2)


@pytest.mark.timeout(300)
def test_connecting_and_closing_leaves_nothing_on_either_side(wire: Wire):
    """Every third time the whole communicator is closed, and a new one made."""
    prefill, decode = wire.pair(SMALL)

    def write(writer, tag: int) -> None:
        assert writer.connect(decode.address)
        writer.write(decode.address, [1], [2], tag=tag)
        decode.received(tag, 20)

    def cycle(i: int) -> None:
        if i % 3 == 0:
            with wire.another() as short:
                write(short.prefill(SMALL), i + 1)
        else:
            prefill.disconnect(decode.address)
            write(prefill, i + 1)

    assert_stays_flat(cycle, CYCLES, [prefill, decode], is_rdma=wire.transport == "rdma")
