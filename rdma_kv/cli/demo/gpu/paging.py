"""A paged KV cache of torch tensors, on whichever device.

A pool is one tensor of one layer: [blocks, kv_heads, block_tokens, head_dim], bfloat16.
"""

from __future__ import annotations

import torch

from rdma_kv.cli.demo.paging import Ids
from rdma_kv.cli.demo.settings import Settings

DTYPE = torch.bfloat16


class Table:
    """Where the prompt's blocks lie: known to the host, and to the device without asking it."""

    def __init__(self, ids: Ids, device: torch.device) -> None:
        self.ids = ids
        self.on_device = torch.from_numpy(ids).to(device)


class PagedTensors:
    """K and V pools of every layer, all zero."""

    def __init__(self, settings: Settings, blocks: int, device: torch.device) -> None:
        sizes = settings.dimensions
        shape = (blocks, sizes.kv_heads, settings.block_tokens, sizes.head_dim)
        self._block_tokens = settings.block_tokens
        self.keys, self.values = (
            [torch.zeros(shape, dtype=DTYPE, device=device) for _ in range(settings.layers)]
            for _ in range(2)
        )

    def pools(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys[layer], self.values[layer]

    def clear(self) -> None:
        for pool in (*self.keys, *self.values):
            pool.zero_()

    def put(self, layer: int, table: Table, key: torch.Tensor, value: torch.Tensor) -> None:
        """Cuts K and V, each [kv_heads, tokens, head_dim], into blocks; never waits for the GPU."""
        for pool, rows in zip(self.pools(layer), (key, value), strict=True):
            heads, tokens, width = rows.shape
            whole, rest = divmod(tokens, self._block_tokens)
            cut = rows[:, : whole * self._block_tokens]
            blocks = cut.reshape(heads, whole, self._block_tokens, width).transpose(0, 1)
            pool.index_copy_(0, table.on_device[:whole], blocks)
            if rest:
                last = int(table.ids[whole])
                pool[last, :, :rest] = rows[:, whole * self._block_tokens :]

    def get(self, layer: int, table: Table, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `tokens` of K and V, each [kv_heads, tokens, head_dim], in one piece again."""
        key, value = (self._gather(pool, table, tokens) for pool in self.pools(layer))
        return key, value

    def blocks(self, layer: int, table: Table) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the whole blocks of `table`, in the order of the prompt."""
        key, value = (pool.index_select(0, table.on_device) for pool in self.pools(layer))
        return key, value

    def flip_block(self, table: Table) -> int:
        """Spoils one block of layer 0 as a lost or stray write would; returns its id.

        The sign of every number in K and V: still finite, so only a comparison can find it.
        """
        block = int(table.ids[len(table.ids) // 2])
        for pool in self.pools(0):
            pool[block].neg_()
        return block

    def _gather(self, pool: torch.Tensor, table: Table, tokens: int) -> torch.Tensor:
        blocks = pool.index_select(0, table.on_device).transpose(0, 1)
        heads, count, block_tokens, width = blocks.shape
        return blocks.reshape(heads, count * block_tokens, width)[:, :tokens]
