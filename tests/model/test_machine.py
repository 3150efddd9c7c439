"""Whatever happens to it, memory is what the model says, and every call ends as it may.

RDMA_KV_MODEL_MINUTES and RDMA_KV_MODEL_SEED: see profile.py.
"""

from __future__ import annotations

import time

import pytest

from model.machine import machine_on, play
from model.profile import EXAMPLES, MINUTES, first_seed, short
from model.stage import Pool
from support.patience import scaled
from support.wire import Wire


@pytest.mark.timeout(scaled(300) + MINUTES * 60)
def test_memory_and_outcomes_follow_the_model(wire: Wire, pool: Pool):
    machine = machine_on(wire, pool)
    number, end = first_seed(), time.monotonic() + MINUTES * 60
    while True:
        play(machine, number, short(EXAMPLES[wire.transport]))
        number += 1
        if time.monotonic() >= end:
            break
    print(dict(machine.outcomes))
    assert machine.outcomes["success"] > 0
