"""How long tests wait, in one place.

Nothing in the tests sleeps by luck: they wait for an event and give up after a generous time. On a
slow machine (the virtual machine of the soft-RoCE ring) one factor stretches all of these times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SCALE = float(os.environ.get("RDMA_KV_TEST_SCALE", "1"))


def scaled(seconds: float) -> float:
    """Seconds on a usual machine, stretched for this one."""
    return seconds * SCALE


def eventually(holds: Callable[[], object], within_s: float, what: str) -> None:
    """Returns as soon as `holds()` is true; fails the test when the time is up."""
    deadline = time.monotonic() + scaled(within_s)
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {scaled(within_s):g} s: {what}")
        time.sleep(0.002)
