"""What a run measures; all its waits follow from here."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rdma_kv.cli.bench.pair import BenchError

TABLES = ("random", "contiguous", "model", "staged", "setup")
PEERS = ("nixl", "mooncake")
KIB = 1024


@dataclass(frozen=True)
class Settings:
    source_gpu: int = 0
    target_gpu: int = 1
    device: str = "cuda"  # "cpu": a rehearsal, all but CUDA itself
    sizes: tuple[int, ...] = tuple(KIB * k for k in (1, 4, 16, 64, 256))
    tables: tuple[str, ...] = TABLES
    peers: tuple[str, ...] = PEERS
    breakdown: bool = False
    seconds: float = 0.5
    row_limit_s: float = 60.0
    budget_s: float = 600.0
    # A model of 70 B parameters: K and V of 80 layers, 16 tokens x 8 KV heads x 128 x bfloat16.
    model_layers: int = 80
    model_blocks: int = 2048
    model_block_bytes: int = 32 * KIB
    bulk_bytes: int = 512 << 20

    def check(self) -> None:
        """Raises BenchError naming the first flag that makes no sense."""
        if min(self.sizes) < KIB:
            raise BenchError("--block-kib must be at least 1")
        if min(self.seconds, self.row_limit_s, self.budget_s) <= 0:
            raise BenchError("--seconds, --row-limit and --budget must be more than 0")
        if min(self.source_gpu, self.target_gpu) < 0:
            raise BenchError("--source-gpu and --target-gpu must be at least 0")
        if self.model_layers < 1 or self.model_blocks < 4:
            raise BenchError("--model-layers must be at least 1 and --model-blocks at least 4")
        for flag, given, known in (
            ("--table", self.tables, TABLES),
            ("--peer", self.peers, PEERS),
        ):
            if unknown := set(given) - set(known):
                raise BenchError(f"{flag} {unknown.pop()}: allowed: {', '.join(known)}")


class Budget:
    """The time that is left for all: nothing waits longer, and what comes later is left out."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left_s(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def limit_s(self, wanted_s: float) -> float:
        """Of one wait. Raises BenchError when nothing is left."""
        left = self.left_s()
        if left <= 0:
            raise BenchError("the time of --budget is over")
        return min(wanted_s, left)
