"""SIGSTOP of either side at random points of its writes, and SIGCONT afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from support.chance import chances
from support.patience import eventually, scaled
from support.peer import PeerProcess
from support.scene import (
    LOAD,
    POINTS,
    SHAPE,
    after_failures,
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
STOPPED_FOR_S = 0.2  # at most, where no heartbeat may be missed


@pytest.mark.parametrize("stopped", ["decode", "prefill"])
def test_a_side_that_is_stopped_for_a_moment_costs_that_moment(
    wire: Wire, born: Bear, stopped: str
):
    if stopped == "decode":
        prefill, decode = wire.prefill(SHAPE), wire.decode(SHAPE, process=born())
        process = decode.process
    else:
        prefill, decode = wire.prefill_in(born(), SHAPE), wire.decode_here(SHAPE)
        process = prefill.process
    assert prefill.connect(decode.address)
    window = Window(decode)
    prefill.start_load(decode.address, **LOAD)

    for chance in chances(POINTS):
        wait_for_a_moment(chance, prefill.load_flows(1, 20))
        process.pause()
        time.sleep(chance.uniform(0, STOPPED_FOR_S))  # not for luck: this is the fault
        process.resume()
    lanes = prefill.end_load(60)

    assert [lane["error"] for lane in lanes] == [""] * len(lanes)
    assert_in_order(window.look(), image_of(decode), image_of(prefill), after_failures(lanes))
    assert_next_write_works(prefill, decode, window)


def test_writes_to_a_stopped_decode_fail_and_say_whether_they_are_over(wire: Wire, born: Bear):
    """All at once, so that the time until a silent peer is given up passes only once."""
    prefills, decodes, windows = [], [], []
    for chance in chances(POINTS):
        prefill, decode = wire.prefill(SHAPE), wire.decode(SHAPE, process=born())
        assert prefill.connect(decode.address)
        windows.append(Window(decode))
        prefill.start_load(decode.address, **LOAD, timeout_s=scaled(1))
        wait_for_a_moment(chance, prefill.load_flows(1, 20))
        decode.process.pause()
        prefills.append(prefill)
        decodes.append(decode)

    outcomes = [prefill.end_load(30, ask=False) for prefill in prefills]
    at_the_end = [window.look() for window in windows]  # while all of them stand still
    for decode in decodes:
        decode.process.resume()

    over = []
    for number, lanes in enumerate(outcomes):
        kinds = {lane["kind"] for lane in lanes}
        assert kinds <= {"TransferTimeout", "PeerLost", "NotQuiesced"}, lanes
        if "NotQuiesced" not in kinds:
            over.append((windows[number], at_the_end[number]))
    assert_immutable(over)
    for prefill, decode, window, lanes in zip(prefills, decodes, windows, outcomes, strict=True):
        # The same life of decode: a write finds the way by itself. From then on all is over.
        prefill.write(decode.address, [], [])
        assert_in_order(window.look(), image_of(decode), image_of(prefill), after_failures(lanes))
        assert_next_write_works(prefill, decode, window)


def test_of_a_prefill_that_is_stopped_nothing_lands_after_decode_ended_the_link(
    wire: Wire, born: Bear
):
    """Nor when it goes on; but of a process that cannot be stopped from writing decode says so."""
    prefills, decodes, windows = [], [], []
    for chance in chances(POINTS):
        # With a link that it made anew it would write on.
        prefill = wire.prefill_in(born(), SHAPE, reconnect=False)
        decode = wire.decode_here(SHAPE)
        assert prefill.connect(decode.address)
        prefill.start_load(decode.address, **LOAD)
        wait_for_a_moment(chance, prefill.load_flows(1, 20))
        prefill.process.pause()
        prefills.append(prefill)
        decodes.append(decode)
        windows.append(Window(decode))

    for decode in decodes:
        await_end(decode, 20)
    at_the_end = [window.look() for window in windows]
    is_listed = [bool(decode.unquiesced()) for decode in decodes]
    assert is_listed == [wire.only_the_sender_stops] * len(decodes)
    for prefill in prefills:
        prefill.process.resume()
    outcomes = [prefill.end_load(20, ask=False) for prefill in prefills]

    for lanes in outcomes:
        assert {lane["kind"] for lane in lanes} <= {"PeerLost", "TransferTimeout"}, lanes
    for decode in decodes:
        eventually(lambda decode=decode: decode.unquiesced() == [], 20, "its sender has stopped")
    if wire.only_the_sender_stops:
        at_the_end = [window.look() for window in windows]  # from here on
    assert_immutable(zip(windows, at_the_end, strict=True))
    for prefill, decode, window, lanes in zip(prefills, decodes, windows, outcomes, strict=True):
        last = window.look()
        assert_in_order(last, image_of(decode), image_of(prefill), after_failures(lanes))
        assert prefill.connect(decode.address)
        assert_next_write_works(prefill, decode, window)
