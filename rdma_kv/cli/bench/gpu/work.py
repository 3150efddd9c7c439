"""Which blocks one write moves, and where they lie: arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdma_kv.cli.bench.work import POOL_BLOCKS, WRITTEN_BLOCKS

Ids = npt.NDArray[np.int64]
Addresses = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Job:
    """One write: three of four blocks of each region, in random or rising order.

    A region is one tensor of one layer; every region has the same blocks written.
    """

    block_bytes: int
    contiguous: bool = False
    layers: int = 1
    has_values: bool = False
    pool_blocks: int = POOL_BLOCKS
    transport: str = "auto"

    @property
    def blocks(self) -> int:
        return self.pool_blocks * WRITTEN_BLOCKS // POOL_BLOCKS

    @property
    def regions(self) -> int:
        return self.layers * (2 if self.has_values else 1)

    @property
    def region_bytes(self) -> int:
        return self.pool_blocks * self.block_bytes

    @property
    def pool_bytes(self) -> int:
        return self.regions * self.region_bytes

    @property
    def bytes(self) -> int:
        """That one write moves."""
        return self.regions * self.blocks * self.block_bytes

    def ids(self) -> tuple[Ids, Ids]:
        if self.contiguous:
            rising = np.arange(self.blocks, dtype=np.int64)
            return rising, rising
        random = np.random.default_rng(self.blocks)
        src, dst = (random.permutation(self.pool_blocks)[: self.blocks] for _ in range(2))
        return src.astype(np.int64), dst.astype(np.int64)

    def source_of(self) -> Ids:
        """For each block of a target's region the block it must hold; -1: none, it stays zero."""
        src, dst = self.ids()
        source = np.full(self.pool_blocks, -1, np.int64)
        source[dst] = src
        return source

    def indices(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Of the blocks of all regions, counted through, in the order of the write."""
        first = np.arange(self.regions, dtype=np.int64)[:, None] * self.pool_blocks
        src, dst = ((first + ids).reshape(-1).astype(np.int32) for ids in self.ids())
        return src, dst

    def all_addresses(self, base: int) -> Addresses:
        """Of every block, where all regions follow one another from `base`."""
        count = self.regions * self.pool_blocks
        steps = np.uint64(self.block_bytes) * np.arange(count, dtype=np.uint64)
        addresses: Addresses = np.uint64(base) + steps
        return addresses

    def __str__(self) -> str:
        order = "contiguous" if self.contiguous else "random"
        size = f"{self.block_bytes / 1024:g} KiB"
        return f"{order} ids, {size}" + (f", {self.layers} layers" if self.layers > 1 else "")
