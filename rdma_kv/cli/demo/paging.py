"""A paged KV cache in NumPy, and the block tables that say where a prompt's blocks lie.

A pool is one tensor of one layer: [blocks, kv_heads, block_tokens, head_dim], float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .settings import HEAD_DIM, KV_HEADS, Settings

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """Where the prompt's i-th block lies on either side.

    A serving system's router hands these out; here both sides draw them from the same seed.
    """

    prefill: Ids
    decode: Ids


def pool_blocks(settings: Settings) -> tuple[int, int]:
    """Blocks in the pools of (prefill, decode): of different size, and larger than the prompt."""
    return settings.blocks + settings.blocks // 2 + 1, 2 * settings.blocks + 3


def draw_tables(settings: Settings) -> Tables:
    random = np.random.default_rng([settings.seed, 0x7AB1E])
    prefill, decode = pool_blocks(settings)
    return Tables(
        prefill=random.permutation(prefill)[: settings.blocks].astype(np.int64),
        decode=random.permutation(decode)[: settings.blocks].astype(np.int64),
    )


class PagedCache:
    """K and V pools of every layer."""

    def __init__(self, settings: Settings, blocks: int) -> None:
        shape = (blocks, KV_HEADS, settings.block_tokens, HEAD_DIM)
        self._block_tokens = settings.block_tokens
        self.keys: list[Floats] = [np.zeros(shape, np.float32) for _ in range(settings.layers)]
        self.values: list[Floats] = [np.zeros(shape, np.float32) for _ in range(settings.layers)]

    def pools(self, layer: int) -> tuple[Floats, Floats]:
        return self.keys[layer], self.values[layer]

    def put(self, layer: int, table: Ids, key: Floats, value: Floats) -> None:
        """Cuts K and V, each [kv_heads, tokens, head_dim], into the blocks of `table`."""
        for pool, rows in zip(self.pools(layer), (key, value), strict=True):
            heads, tokens, width = rows.shape
            whole, rest = divmod(tokens, self._block_tokens)
            cut = rows[:, : whole * self._block_tokens]
            cut = cut.reshape(heads, whole, self._block_tokens, width)
            pool[table[:whole]] = cut.transpose(1, 0, 2, 3)
            if rest:
                pool[table[whole], :, :rest] = rows[:, whole * self._block_tokens :]

    def get(self, layer: int, table: Ids, tokens: int) -> tuple[Floats, Floats]:
        """The first `tokens` of K and V, each [kv_heads, tokens, head_dim], contiguous again."""
        key, value = (self._gather(pool, table, tokens) for pool in self.pools(layer))
        return key, value

    def _gather(self, pool: Floats, table: Ids, tokens: int) -> Floats:
        blocks = pool[table].transpose(1, 0, 2, 3)
        heads, count, block_tokens, width = blocks.shape
        return np.ascontiguousarray(blocks.reshape(heads, count * block_tokens, width)[:, :tokens])

    def blocks(self, layer: int, table: Ids) -> tuple[Floats, Floats]:
        """Copies of the whole blocks of `table`."""
        return self.keys[layer][table], self.values[layer][table]

    def flip_block(self, table: Ids) -> int:
        """Spoils one block of layer 0 as a lost or stray write would; returns its id.

        The sign of every number in K and V: still finite, so only a comparison can find it.
        """
        block = int(table[len(table) // 2])
        for pool in self.pools(0):
            bits: npt.NDArray[Any] = pool[block].view(np.uint32)
            bits ^= np.uint32(0x80000000)
        return block
