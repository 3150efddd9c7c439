"""The work that every row does: which blocks go where, what is in them, and how time is taken."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]

POOL_BLOCKS = 2048
WRITTEN_BLOCKS = 1538
WARM_UP = 3
LEAST_REPEATS = 9
MOST_REPEATS = 200


@dataclass(frozen=True)
class Work:
    """One write: `WRITTEN_BLOCKS` of `POOL_BLOCKS` blocks, in random or rising order."""

    block_bytes: int
    contiguous: bool

    @property
    def bytes(self) -> int:
        return WRITTEN_BLOCKS * self.block_bytes

    def ids(self) -> tuple[Ids, Ids]:
        if self.contiguous:
            rising = np.arange(WRITTEN_BLOCKS, dtype=np.int64)
            return rising, rising
        random = np.random.default_rng(1538)
        src, dst = (random.permutation(POOL_BLOCKS)[:WRITTEN_BLOCKS] for _ in range(2))
        return src.astype(np.int64), dst.astype(np.int64)

    def empty_pool(self) -> Bytes:
        return np.zeros((POOL_BLOCKS, self.block_bytes), np.uint8)

    def filled_pool(self) -> Bytes:
        pool = self.empty_pool()
        random = np.random.default_rng(self.block_bytes)
        pool[:] = random.integers(0, 256, pool.shape, np.uint8)
        return pool

    def expected_checksums(self, source: Bytes) -> list[int]:
        """Of every block of the destination: those that are not written stay zero."""
        src, dst = self.ids()
        sums = [zlib.crc32(bytes(self.block_bytes))] * POOL_BLOCKS
        for here, there in zip(src, dst, strict=True):
            sums[there] = zlib.crc32(source[here])
        return sums


def checksums(pool: Bytes) -> list[int]:
    return [zlib.crc32(block) for block in pool]


@dataclass(frozen=True)
class Times:
    """Of one call to completion, after warm-up."""

    repeats: int
    p50_us: float
    p99_us: float  # of fewer than 100 repeats: the slowest

    def gb_per_s(self, moved_bytes: int) -> float:
        return moved_bytes / (self.p50_us * 1e3)


def take_times(call: Callable[[], object], seconds: float) -> Times:
    for _ in range(WARM_UP):
        call()
    taken_us: list[float] = []
    until_ns = time.perf_counter_ns() + int(seconds * 1e9)
    while len(taken_us) < LEAST_REPEATS or (
        len(taken_us) < MOST_REPEATS and time.perf_counter_ns() < until_ns
    ):
        begin_ns = time.perf_counter_ns()
        call()
        taken_us.append((time.perf_counter_ns() - begin_ns) / 1e3)
    return times_of(taken_us)


def times_of(taken_us: list[float]) -> Times:
    p99 = float(np.percentile(taken_us, 99, method="higher"))
    return Times(len(taken_us), float(np.median(taken_us)), p99)
