"""What is measured, and the numbers that it depends on, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

# One write: some hundred microseconds, so that a stall of one millisecond is seen.
BLOCKS = 64
BLOCK_BYTES = 4096
POOL_BLOCKS = 512
TAG = 7

# What an engine may do with a peer that fails: a short deadline, and tries again soon.
SICK_TIMEOUT_S = 1.0
SICK_RETRY_S = 0.05
SICK_WRITERS = 2

# The sickness begins before anything is timed, and its end is waited for.
LEAD_S = 0.2


@dataclass(frozen=True)
class Settings:
    transports: tuple[str, ...] = ("cma", "tcp")
    kinds: tuple[str, ...] = ()
    healthy: int = 8
    rounds: int = 10
    phase_s: float = 2.0
    rate: float = 300.0  # timed writes a second, over all healthy peers
    flood_rate: float = 500.0  # messages, or connections, a second
    target: float = 1.1
