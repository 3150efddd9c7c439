"""Packets vanish and nobody is told: every wait ends by itself, and then nothing lands any more."""

from __future__ import annotations

import subprocess
import time

import pytest

from rdma_kv import NotQuiesced, PeerLost, TransferError, TransferTimeout
from support.wire import Wire
from tests.faults.network.cable import DECODE, ENDS, PREFILL, Cable, End
from tests.faults.network.pair import EVERY, GRACE_S, TURNED, Pair

DEADLINE_S = 2.0
# Five heartbeats, the one that was under way, and the next look at the clock.
NOTICED_WITHIN_S = 12.0


def knows_a_peer(pair: Pair) -> bool:
    with pytest.raises(TransferTimeout) as late:
        pair.decode.received(1, 0.0)
    return "no peer is connected" not in str(late.value)


def queue_pairs() -> str:
    """What programs hold, as the kernel lists it; its own are left out."""
    shown = subprocess.run(
        ["rdma", "resource", "show", "qp"], check=True, capture_output=True, text=True
    ).stdout
    return "\n".join(line for line in shown.splitlines() if "[ib_core]" not in line) + "\n"


@pytest.mark.parametrize("at", [ENDS, (DECODE,)], ids=["everything", "answers"])
def test_a_write_into_a_black_hole_ends_in_time(
    pair: Pair, cable: Cable, at: tuple[End, ...]
) -> None:
    transfer = pair.start_and_hit(cable, lambda: cable.swallow(*at), timeout_s=DEADLINE_S)
    swallowed = time.monotonic()

    error = pair.fails(transfer)

    assert time.monotonic() - swallowed < DEADLINE_S + GRACE_S
    assert "did not finish within" in str(error)
    assert isinstance(error, TransferError)
    pair.is_over(cable, error)


def test_heartbeats_end_a_write_that_has_a_long_deadline(pair: Pair, cable: Cable) -> None:
    transfer = pair.start_and_hit(cable, cable.swallow, timeout_s=120)
    swallowed = time.monotonic()

    error = pair.fails(transfer)

    assert time.monotonic() - swallowed < NOTICED_WITHIN_S + GRACE_S
    assert any(cause in str(error) for cause in ("no heartbeat", "retry counter exceeded"))
    pair.is_over(cable, error)


def test_both_sides_notice_an_idle_peer_that_vanished(lane: Wire, cable: Cable) -> None:
    pair = Pair(lane)
    pair.works()
    swallowed = time.monotonic()
    cable.swallow(PREFILL)

    while knows_a_peer(pair) or pair.prefill.is_connected(pair.address):
        assert time.monotonic() - swallowed < NOTICED_WITHIN_S, "one of them has not noticed"
        time.sleep(0.05)
    if pair.transport == "rdma":  # nothing of it can land: decode has no queue pair any more
        assert f"link {DECODE.nic}/" not in queue_pairs()

    with pytest.raises(PeerLost, match=":".join(pair.address)):
        pair.start(EVERY, TURNED, 2, timeout_s=1.0)
    cable.mend()
    assert not pair.decode.changed_within(1.0)
    pair.works()


def test_what_is_late_on_the_way_lands_before_the_error_or_never(pair: Pair, cable: Cable) -> None:
    """A queue in the network holds everything back for longer than the write may take."""
    cable.weather("delay 3500ms", PREFILL)
    transfer = pair.start(EVERY, TURNED, 2, timeout_s=0.5)

    error = pair.fails(transfer)

    if not isinstance(error, NotQuiesced):  # else it said that bytes may land, and which
        assert not pair.decode.changed_within(5.0), "bytes landed after the error"
    pair.is_over(cable, error)
