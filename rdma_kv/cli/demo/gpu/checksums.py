"""Checksums of tensors, worked out where they lie: only a few sums come to the host."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import torch

from .paging import PagedTensors, Table


def checksum(tensors: Iterable[torch.Tensor]) -> str:
    """Of 16-bit elements, by value and by place: sums over rows and sums over columns."""
    found = 0
    for tensor in tensors:
        bits = tensor.detach().contiguous().view(torch.int16)
        rows = bits.reshape(bits.shape[0], -1)
        for sums in (rows.sum(0, dtype=torch.int64), rows.sum(1, dtype=torch.int64)):
            found = zlib.crc32(sums.cpu().numpy().tobytes(), found)
    return f"{found:08x}"


def layer_checksums(cache: PagedTensors, table: Table, layers: int) -> list[str]:
    """Of K and V of every layer, in the order of the prompt: alike wherever the blocks lie."""
    return [checksum(cache.blocks(layer, table)) for layer in range(layers)]
