"""Random moments that can be repeated: the seed is in the output of a test that fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

SEED = "RDMA_KV_TEST_SEED"


def chances(count: int) -> Iterator[random.Random]:
    """`count` sources of chance, from a new seed each time or from the one of RDMA_KV_TEST_SEED."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**9))
    for number in range(count):
        print(f"point {number} of {SEED}={seed}")
        yield random.Random(seed * 1000 + number)
