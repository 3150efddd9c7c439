"""kill -9 of either side at random points of its writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.chance import chances
from support.peer import PeerProcess
from support.scene import (
    LOAD,
    POINTS,
    SHAPE,
    after_notices,
    assert_immutable,
    assert_in_order,
    assert_next_write_works,
    await_end,
    wait_for_a_moment,
)
from support.window import Window
from support.wire import Wire, image_of

pytestmark = [pytest.mark.two_processes, pytest.mark.timeout(240)]

Bear = Callable[[], PeerProcess]


def test_a_decode_that_is_killed_fails_the_writes_under_way(wire: Wire, born: Bear):
    """And its successor, at the same port, is written to as if nothing had been."""
    prefill = wire.prefill(SHAPE)
    port = "0"
    for chance in chances(POINTS):
        decode = wire.decode(SHAPE, process=born(), port=port)
        port = decode.address[1]
        assert prefill.connect(decode.address)
        assert_next_write_works(prefill, decode, Window(decode))
        prefill.start_load(decode.address, **LOAD)
        wait_for_a_moment(chance, prefill.load_flows(1, 20))

        decode.process.kill()
        lanes = prefill.end_load(10, ask=False)

        for lane in lanes:
            # A dead process receives nothing: never NotQuiesced.
            assert lane["kind"] == "PeerLost", lane
            assert ":".join(decode.address) in lane["error"]


def test_of_a_prefill_that_is_killed_nothing_lands_after_decode_ended_the_link(
    wire: Wire, born: Bear
):
    successor = wire.prefill(SHAPE)
    watched = []
    for chance in chances(POINTS):
        decode = wire.decode_here(SHAPE)
        prefill = wire.prefill_in(born(), SHAPE)
        assert prefill.connect(decode.address)
        prefill.start_load(decode.address, **LOAD, tagged=True)
        wait_for_a_moment(chance, prefill.load_flows(1, 20))

        prefill.process.kill()
        await_end(decode, 5)
        window = Window(decode)
        at_the_end = window.look()
        tags = [tag for tag, *_ in decode.notices()]

        source = image_of(prefill)
        assert_in_order(at_the_end, image_of(decode), source, after_notices(tags))
        assert successor.connect(decode.address)
        after = assert_next_write_works(successor, decode, window)
        watched.append((window, after))

    assert_immutable(watched)
