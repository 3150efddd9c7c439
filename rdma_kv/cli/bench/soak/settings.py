"""What a run is asked to do; the same object goes to every process."""

from __future__ import annotations

import os
from dataclasses import dataclass

MOST_SLOTS = 4000
SLOTS_PER_WRITER = 4  # writes that one writer has under way at once
_LEAST_OWNED_BLOCKS = 48

# Read by these programs only: "notice", "late", "guard" spoil a byte, "hang" stops a writer. A
# checker that was never seen to fail proves nothing.
SABOTAGE_VARIABLE = "RDMA_KV_SOAK_SABOTAGE"
SABOTAGES = ("notice", "late", "guard", "hang")


@dataclass(frozen=True)
class Settings:
    seconds: float = 60.0
    peers: int = 4
    prefills: int = 2
    threads: int = 2  # in each prefill process
    transports: tuple[str, ...] = ("cma", "tcp")
    seed: int = 0
    faults: bool = True
    fault_every_s: float = 2.0
    checkpoint_every_s: float = 60.0
    load: float = 1.0
    layers: int = 3
    blocks: int = 768
    block_bytes: int = 4096
    scale_block_bytes: int = 64
    hang_s: float = 60.0
    sabotage: str = ""

    @property
    def writers(self) -> int:
        return self.prefills * self.threads

    @property
    def slots(self) -> int:
        return self.writers * SLOTS_PER_WRITER

    @property
    def share_of_core(self) -> float:
        """What one writer may use: its process and decode use about as much again for it."""
        cores = len(os.sched_getaffinity(0))
        return self.load * cores / self.writers / 2

    def problem(self) -> str | None:
        """Why this cannot be run; None: it can."""
        if min(self.peers, self.prefills, self.threads, self.layers) < 1:
            return "--peers, --prefills, --threads and --layers must be at least 1"
        if min(self.seconds, self.fault_every_s, self.checkpoint_every_s, self.hang_s) <= 0:
            return "times must be more than 0"
        if not 0 < self.load <= 1:
            return "--load is the share of this machine's cores: more than 0, at most 1"
        if self.slots > MOST_SLOTS:
            return f"{self.writers} writers are too many: at most {MOST_SLOTS // SLOTS_PER_WRITER}"
        if self.blocks < self.writers * _LEAST_OWNED_BLOCKS:
            return f"--blocks must be at least {_LEAST_OWNED_BLOCKS} for each writer"
        if self.block_bytes < 64 or self.block_bytes % 8:
            return "--block-bytes must be a multiple of 8, at least 64"
        if self.sabotage and self.sabotage not in SABOTAGES:
            return f"{SABOTAGE_VARIABLE}={self.sabotage}: allowed: {', '.join(SABOTAGES)}"
        return None
