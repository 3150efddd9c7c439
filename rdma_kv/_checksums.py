"""Checksums of blocks, for KVCACHE_VERIFY: slow on purpose."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterable

from rdma_kv import _core


class BlockSums:
    """CRC-32 of the part of each block that a prefill and a decode rank have in common."""

    def __init__(self, layout: _core.Layout, parts: list[tuple[int, int]]) -> None:
        self._layout = layout
        self._parts = parts  # (offset in this side's block, bytes) per tensor

    @classmethod
    def on_prefill(cls, layout: _core.Layout, decode: _core.Geometry) -> BlockSums:
        """Of the blocks that this prefill side writes."""
        slices = _core.agree(layout.geometry, decode)
        return cls(layout, [(src, size) for src, _, size in slices])

    @classmethod
    def on_decode(cls, layout: _core.Layout, prefill: _core.Geometry) -> BlockSums:
        """Of the blocks that this decode side was written."""
        slices = _core.agree(prefill, layout.geometry)
        return cls(layout, [(dst, size) for _, dst, size in slices])

    def of(self, layer: int, tensor: int, blocks: Iterable[int]) -> list[int]:
        """One checksum per block.

        Raises:
            ValueError: Layer, tensor or a block is out of range.
        """
        geometry = self._layout.geometry
        if not (0 <= layer < geometry.layers and 0 <= tensor < len(geometry.tensors)):
            raise ValueError(f"layer {layer}, tensor {tensor}: out of range")
        base, _, device = self._layout.regions[layer * len(geometry.tensors) + tensor]
        stride = geometry.tensors[tensor][2]
        offset, size = self._parts[tensor]
        sums = []
        for block in blocks:
            if not 0 <= block < geometry.block_count:
                raise ValueError(f"block {block}: must be below {geometry.block_count}")
            address = base + block * stride + offset
            if device >= 0:
                sums.append(zlib.crc32(_core.cuda_read(device, address, size)))
            else:
                sums.append(zlib.crc32((ctypes.c_char * size).from_address(address)))
        return sums
