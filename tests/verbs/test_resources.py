"""What the kernel counts of ours."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.vm

REGIONS = 4
SCRATCH = 1  # where flushes read to


def test_regions_are_registered_once_whatever_the_number_of_peers(lab: Any) -> None:
    decode = lab.side(nic="rxe1")
    counts = []

    for peers in range(1, 6):
        prefill = lab.side(nic="rxe0")
        lab.join(prefill, decode, qps=2)
        counts.append((lab.count("mr", "rxe1"), lab.count("qp", "rxe1")))
        assert lab.count("mr", "rxe0") == peers * (REGIONS + SCRATCH)

    assert counts == [(REGIONS + SCRATCH, 2 * peers) for peers in range(1, 6)]


def test_one_prefill_with_many_peers_registers_once_too(lab: Any) -> None:
    prefill = lab.side(nic="rxe0")

    for _ in range(5):
        lab.join(prefill, lab.side(nic="rxe1"), qps=3)

    assert lab.count("mr", "rxe0") == REGIONS + SCRATCH
    assert lab.count("qp", "rxe0") == 5 * 3


def test_a_closed_link_leaves_nothing_behind(lab: Any) -> None:
    prefill, decode = lab.side(nic="rxe0"), lab.side(nic="rxe1")
    peer = lab.join(prefill, decode, qps=3)
    peer.write_wait([1], [2], 0, 2, 1, 20.0)

    peer.close(5.0)

    assert lab.count("qp", "rxe1") == 0  # the peer's word was waited for
    deadline = time.monotonic() + 5
    while lab.count("qp", "rxe0") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lab.count("qp", "rxe0") == 0
    assert decode.engine.inbound_links() == []


def test_an_idle_link_uses_no_processor(lab: Any) -> None:
    prefill, decode = lab.side(nic="rxe0"), lab.side(nic="rxe1")
    peer = lab.join(prefill, decode, qps=3)
    peer.write_wait([1], [2], 0, 2, 1, 20.0)
    started = time.process_time()

    time.sleep(2.0)

    assert time.process_time() - started < 0.1
