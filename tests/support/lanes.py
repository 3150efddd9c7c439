"""Which bytes each write of a load brings, and what memory may hold after some of them.

A lane is a run of destination blocks that are always written together. Write k of a lane takes
other source blocks than write k-1, so that the bytes tell which write they are of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from support.cache import Cache

BEFORE = None  # instead of a write's number: what was there before all of them

Writes = set[int | None]


@dataclass(frozen=True)
class Lanes:
    """`count` lanes of `size` blocks from block `first` on, of a cache with `blocks` blocks."""

    blocks: int
    count: int
    size: int
    first: int = 0

    def src(self, lane: int, write: int) -> list[int]:
        start = lane * self.size + 7 * write
        return [(start + i) % self.blocks for i in range(self.size)]

    def dst(self, lane: int) -> list[int]:
        """Downwards: no block has the same neighbours on both sides."""
        start = self.first + lane * self.size
        return list(range(start, start + self.size))[::-1]

    def tag(self, lane: int, write: int) -> int:
        return 1 + lane + self.count * write

    def of_tag(self, tag: int) -> tuple[int, int]:
        """Lane and write."""
        return (tag - 1) % self.count, (tag - 1) // self.count

    def faults(
        self, memory: Cache, before: Cache, source: Cache, writes: Mapping[int, Writes]
    ) -> list[str]:
        """What is wrong in memory where every byte of a lane must be of one of those writes.

        Lanes that are not named, other blocks, padding and guards must hold what was there before.
        """
        wrong = self.faults_beside(memory, before, writes)
        for where in memory.raw():
            for lane, allowed in writes.items():
                wrong += self._inside(memory, before, source, where, lane, allowed)
        return wrong

    def faults_beside(self, memory: Cache, before: Cache, lanes: Iterable[int]) -> list[str]:
        """What has changed beside these lanes."""
        ours = [block for lane in lanes for block in self.dst(lane)]
        wrong = []
        for where, raw in memory.raw().items():
            rest = Cache.holding(memory.shape, {where: raw.copy()})
            rest.blocks(*where)[ours] = before.blocks(*where)[ours]
            differs = np.flatnonzero(rest.raw()[where] != before.raw()[where])
            if differs.size:
                wrong.append(f"{where}: {differs.size} bytes changed, the first at {differs[0]}")
        return wrong

    def _inside(
        self,
        memory: Cache,
        before: Cache,
        source: Cache,
        where: tuple[str, int],
        lane: int,
        allowed: Writes,
    ) -> list[str]:
        dst = self.dst(lane)
        found = memory.blocks(*where)[dst]
        good = np.zeros(found.shape, bool)
        for write in allowed:
            if write is BEFORE:
                good |= found == before.blocks(*where)[dst]
            else:
                good |= found == source.blocks(*where)[self.src(lane, write)]
        bad = [block for block, is_good in zip(dst, good.all(axis=1), strict=True) if not is_good]
        if not bad:
            return []
        return [f"{where}, lane {lane}: blocks {bad} hold other bytes than of writes {allowed}"]
