"""One life of a decode's memory: a file without a name, mapped by whoever must see it.

It begins with what the processes tell each other without the product's help: the newest notice of
each slot that decode found to be right. Then come the regions, between guards.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from .content import Bytes, Content, Words
from .geometry import HEADER_BYTES, NOBODY, Geometry, owners_of_blocks
from .settings import Settings


def create(geometry: Geometry, content: Content) -> int:
    """A descriptor of a new one; nobody has written to it yet."""
    descriptor = os.memfd_create("rdma_kv_soak")
    os.ftruncate(descriptor, geometry.file_bytes)
    mapped = CacheFile(descriptor, geometry)
    mapped.memory[HEADER_BYTES:] = content.untouched(geometry.file_bytes - HEADER_BYTES)
    return descriptor


def path_of(descriptor: int) -> str:
    """As this process's children can open it, for as long as it is open here."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


class CacheFile:
    def __init__(self, file: int | str, geometry: Geometry) -> None:
        descriptor = os.open(file, os.O_RDWR) if isinstance(file, str) else file
        try:
            self._map = mmap.mmap(descriptor, geometry.file_bytes)
        finally:
            if isinstance(file, str):
                os.close(descriptor)
        self.geometry = geometry
        self.memory: Bytes = np.frombuffer(self._map, np.uint8)
        header: Words = self.memory[:HEADER_BYTES].view(np.uint64)
        self.confirmed, self._epoch = header[:-1], header[-1:]

    @property
    def epoch(self) -> int:
        """Of the decode whose memory this is; 0: it has not said so yet."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        self._epoch[0] = epoch


class Outside:
    """All that no write may touch: guards, gaps between blocks, blocks that belong to nobody."""

    def __init__(self, settings: Settings, peer: int, geometry: Geometry, content: Content) -> None:
        self._untouched = content.untouched(geometry.file_bytes - HEADER_BYTES)
        is_outside = np.ones(geometry.file_bytes, bool)
        is_outside[:HEADER_BYTES] = False
        owned = owners_of_blocks(settings, peer) != NOBODY
        for region in geometry.regions:
            end = region.offset + region.blocks * region.stride
            blocks = is_outside[region.offset : end].reshape(region.blocks, region.stride)
            blocks[owned, : region.block_bytes] = False
        self._is_outside = is_outside[HEADER_BYTES:]
        self.bytes = int(self._is_outside.sum())

    def problem(self, cache: CacheFile) -> str | None:
        memory = cache.memory[HEADER_BYTES:]
        wrong = np.flatnonzero((memory != self._untouched) & self._is_outside)
        if not len(wrong):
            return None
        return (
            f"{len(wrong)} bytes outside of every block that may be written have changed, "
            f"the first at offset {int(wrong[0]) + HEADER_BYTES} of the file"
        )
