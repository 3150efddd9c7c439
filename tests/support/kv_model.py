"""A byte-exact model of both sides' memory, which knows nothing of the code under test.

What a write must do is said here head by head and byte by byte, in the slowest and plainest way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rdma_kv import _core

KEY, VALUE, KEY_SCALE, VALUE_SCALE = range(4)
GUARD = 64  # canary bytes on either side of every region


@dataclass(frozen=True)
class Rank:
    """One side: its share of the heads, its blocks, and how far apart they start."""

    blocks: int
    size: int = 1
    rank: int = 0
    padding: int = 0  # bytes between blocks


@dataclass(frozen=True)
class Model:
    """`heads` heads of `head_bytes[kind]` bytes in each block of each layer."""

    layers: int
    heads: int
    head_bytes: dict[int, int]

    def geometry(self, side: Rank) -> _core.Geometry:
        tensors = []
        for kind in sorted(self.head_bytes):
            block = self.block_bytes(kind, side)
            tensors.append((kind, block, block + side.padding))
        return _core.Geometry(self.layers, side.blocks, tensors, "", side.size, side.rank)

    def block_bytes(self, kind: int, side: Rank) -> int:
        assert self.heads % side.size == 0
        return self.heads // side.size * self.head_bytes[kind]


@dataclass
class Memory:
    """The regions of one side at made-up addresses, filled with bytes that tell places apart."""

    model: Model
    side: Rank
    first_address: int
    seed: int
    regions: list[bytearray] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        noise = random.Random(self.seed)
        address = self.first_address
        for _ in range(self.model.layers):
            for kind in sorted(self.model.head_bytes):
                block = self.model.block_bytes(kind, self.side)
                size = (self.side.blocks - 1) * (block + self.side.padding) + block
                self.regions.append(bytearray(noise.randbytes(size + 2 * GUARD)))
                self.bases.append(address + GUARD)
                address += size + 2 * GUARD

    def layout(self) -> _core.Layout:
        return _core.Layout(self.model.geometry(self.side), self.bases, [-1] * len(self.bases))

    def _place(self, address: int, size: int, region: int) -> int:
        start = address - self.bases[region]
        payload = len(self.regions[region]) - 2 * GUARD
        assert 0 <= start <= start + size <= payload, (
            f"{size} bytes at {address:#x} are not inside region {region}"
        )
        return start + GUARD

    def read(self, address: int, size: int, region: int) -> bytes:
        start = self._place(address, size, region)
        return bytes(self.regions[region][start : start + size])

    def write(self, address: int, data: bytes, region: int) -> None:
        start = self._place(address, len(data), region)
        self.regions[region][start : start + len(data)] = data

    def head(self, region: int, kind: int, block: int, head: int) -> tuple[int, int] | None:
        """Where a head of a block lies: (start, end) in the region's bytes; None: not here."""
        mine = self.model.heads // self.side.size
        local = head - self.side.rank * mine
        if not 0 <= local < mine:
            return None
        size = self.model.head_bytes[kind]
        stride = mine * size + self.side.padding
        start = GUARD + block * stride + local * size
        return start, start + size


def execute(extents: Sequence[tuple[int, int, int, int]], src: Memory, dst: Memory) -> None:
    """Carries the extents out, and fails when one leaves its region."""
    for src_address, dst_address, size, region in extents:
        dst.write(dst_address, src.read(src_address, size, region), region)


def expected(
    src: Memory, dst: Memory, pairs: Sequence[tuple[int, int]], layers: range
) -> list[bytearray]:
    """The destination's regions as they must be after the write."""
    result = [bytearray(r) for r in dst.regions]
    kinds = sorted(src.model.head_bytes)
    for layer in layers:
        for position, kind in enumerate(kinds):
            region = layer * len(kinds) + position
            for src_block, dst_block in pairs:
                for head in range(src.model.heads):
                    there = src.head(region, kind, src_block, head)
                    here = dst.head(region, kind, dst_block, head)
                    if there and here:
                        result[region][slice(*here)] = src.regions[region][slice(*there)]
    return result
