"""How long the machine runs.

| variable | effect |
|---|---|
| RDMA_KV_MODEL_MINUTES | a soak of so many minutes, of longer histories; unset: a short run |
| RDMA_KV_MODEL_SEED | the seed; unset: always the same in the short run, a new one in a soak |
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, Phase, settings

MINUTES = float(os.environ.get("RDMA_KV_MODEL_MINUTES", "0"))
IS_SOAK = MINUTES > 0

EXAMPLES = {"loopback": 60, "cma": 60, "tcp": 60, "rdma": 4}
STEPS = 50 if IS_SOAK else 30


def first_seed() -> int:
    if given := os.environ.get("RDMA_KV_MODEL_SEED"):
        return int(given)
    return random.SystemRandom().randrange(2**32) if IS_SOAK else 1


def short(examples: int) -> settings:
    """Histories are not shrunk: how calls end depends on timing, so most of what a smaller one
    shows is another history. The journal of the failed one is printed instead."""
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=True,
        report_multiple_bugs=False,
        # Real processes, real timeouts: a slow history is not a bad one.
        suppress_health_check=[HealthCheck.too_slow],
    )
