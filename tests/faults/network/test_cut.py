"""The cable is pulled out in the middle of a write, at either end, and put back."""

from __future__ import annotations

import time

import pytest

from support.outcome import ending
from tests.faults.network.cable import DECODE, PREFILL, Cable, End
from tests.faults.network.pair import EVERY, GRACE_S, TURNED, Pair

ends = pytest.mark.parametrize("end", [PREFILL, DECODE], ids=["at-prefill", "at-decode"])
DEADLINE_S = 2.0


@ends
def test_a_short_cut_costs_time_only(pair: Pair, cable: Cable, end: End) -> None:
    transfer = pair.start_and_hit(cable, lambda: cable.cut(end), timeout_s=60)
    time.sleep(0.3)  # how long it is out
    cable.plug_in()

    error = ending(transfer)

    if error is not None:
        # Soft-RoCE gives up at once when its own interface has lost its route; nobody else may.
        assert (pair.transport, end) == ("rdma", PREFILL)
        pair.names_all(error)
        assert "is its port up" in str(error)
        pair.is_over(cable, error)
        return
    assert pair.decode.received_digests(2, 10) == pair.took(EVERY, TURNED)
    assert pair.decode.notices() == []


@ends
def test_a_long_cut_ends_the_write_in_time(pair: Pair, cable: Cable, end: End) -> None:
    transfer = pair.start_and_hit(cable, lambda: cable.cut(end), timeout_s=DEADLINE_S)
    cut = time.monotonic()

    error = pair.fails(transfer)

    assert time.monotonic() - cut < DEADLINE_S + GRACE_S
    pair.is_over(cable, error)
