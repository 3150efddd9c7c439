"""Decode comes and goes at one port, under load."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from support.chance import chances
from support.lanes import Lanes
from support.load import LANES
from support.patience import SCALE, scaled
from support.peer import PeerProcess
from support.scene import LAST_TAG, SHAPE, after_failures, wait_for_a_moment
from support.window import Window
from support.wire import Wire, image_of

pytestmark = [pytest.mark.two_processes, pytest.mark.timeout(300)]

RESTARTS = max(8, round(50 / SCALE))
SMALL = SHAPE.but(blocks=256)
SIZE = 16
# Two lives that follow each other are written to in different halves.
HALVES = (0, 128)
OF_LIFE = [Lanes(SMALL.blocks, LANES, SIZE, first) for first in HALVES]
SPARE = list(range(HALVES[0] + LANES * SIZE, HALVES[1]))

Bear = Callable[[], PeerProcess]


def lanes_of(life: int) -> dict[str, int]:
    return {"blocks": SMALL.blocks, "size": SIZE, "first": HALVES[life % 2], "begin": life}


def test_what_was_meant_for_one_life_never_lands_in_the_next(wire: Wire, born: Bear):
    """And the next is written to at once."""
    # No link is made unasked: a write that lands in the next life was meant for the last.
    prefill = wire.prefill(SMALL, reconnect=False)
    port = "0"
    for life, chance in enumerate(chances(RESTARTS)):
        decode = wire.decode(SMALL, process=born(), port=port)
        port = decode.address[1]
        window, wanted = Window(decode), image_of(decode)

        started = time.monotonic()
        assert prefill.connect(decode.address)
        assert time.monotonic() - started < scaled(3)
        wanted.take(prefill.cache, SPARE, SPARE[::-1], range(SMALL.layers))
        prefill.write(decode.address, SPARE, SPARE[::-1], tag=LAST_TAG)
        decode.received(LAST_TAG, 10)
        assert window.look().digests() == wanted.digests()

        prefill.start_load(decode.address, **lanes_of(life))
        wait_for_a_moment(chance, prefill.load_flows(1, 20))
        if chance.random() < 0.3:
            decode.close()
        else:
            decode.process.pause()
        memory = window.look()
        decode.process.kill()

        for lane in prefill.end_load(10, ask=False):
            assert lane["kind"] in ("PeerLost", "TransferError"), lane
        assert OF_LIFE[life % 2].faults_beside(memory, wanted, range(LANES)) == []


def test_writers_that_connect_after_an_error_find_every_life(wire: Wire, born: Bear):
    prefill = wire.prefill(SMALL)
    port = "0"
    for life, chance in enumerate(chances(RESTARTS // 2)):
        decode = wire.decode(SMALL, process=born(), port=port)
        port = decode.address[1]
        if life == 0:
            assert prefill.connect(decode.address)
            prefill.start_load(decode.address, **lanes_of(0), stubborn=True)
        wait_for_a_moment(chance, prefill.load_flows(2, 20))
        if life < RESTARTS // 2 - 1:
            decode.process.kill()
    lanes = prefill.end_load(20)

    # One whose writes are short may have had none under way whenever decode was killed.
    kinds = {lane["kind"] for lane in lanes}
    assert kinds - {""}, lanes
    assert kinds <= {"", "PeerLost", "TransferError", "HandshakeError"}, lanes
    assert all(lane["failed"] is None for lane in lanes)
    faults = OF_LIFE[0].faults(
        Window(decode).look(), image_of(decode), prefill.cache, after_failures(lanes)
    )
    assert faults == []
