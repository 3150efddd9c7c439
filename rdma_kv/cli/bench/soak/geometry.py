"""Where each region of a decode's cache lies in its file, and who may write to which block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .content import Bytes, Ids
from .settings import Settings

HEADER_BYTES = 64 * 1024
_GUARD_BYTES = 4096
# Between blocks, in every other decode: no two of its blocks are neighbours in memory.
_GAP_BYTES = 64
_KINDS = ("K", "V", "K scales", "V scales")
NOBODY = -1


@dataclass(frozen=True)
class Region:
    number: int
    name: str
    layer: int
    offset: int
    blocks: int
    block_bytes: int
    stride: int

    def of(self, memory: Bytes) -> Bytes:
        """Its blocks, with the gap behind each: shape (blocks, stride)."""
        end = self.offset + self.blocks * self.stride
        return memory[self.offset : end].reshape(self.blocks, self.stride)


@dataclass(frozen=True)
class Geometry:
    regions: tuple[Region, ...]
    file_bytes: int

    def of_layers(self, first: int, count: int) -> list[Region]:
        return [r for r in self.regions if first <= r.layer < first + count]


def decode_geometry(settings: Settings, peer: int) -> Geometry:
    gap = _GAP_BYTES if peer % 2 else 0
    offset = HEADER_BYTES + _GUARD_BYTES
    regions: list[Region] = []
    for layer in range(settings.layers):
        for kind in _KINDS:
            size = settings.scale_block_bytes if "scales" in kind else settings.block_bytes
            name = f"layer {layer} {kind}"
            region = Region(len(regions), name, layer, offset, settings.blocks, size, size + gap)
            regions.append(region)
            offset += region.blocks * region.stride + _GUARD_BYTES
    return Geometry(tuple(regions), offset)


def owners_of_blocks(settings: Settings, peer: int) -> Ids:
    """Which writer each block belongs to, in runs of random length; a few belong to nobody."""
    random = np.random.default_rng((settings.seed, peer))
    owners: list[int] = []
    while len(owners) < settings.blocks:
        owner = NOBODY if random.random() < 0.05 else int(random.integers(settings.writers))
        owners.extend([owner] * int(random.integers(1, 17)))
    found = np.array(owners[: settings.blocks], np.int64)
    for writer in range(settings.writers):  # each has at least a few, whatever the dice say
        found[writer * 8 : writer * 8 + 8] = writer
    found[-4:] = NOBODY
    return found
