"""Engines as they were written against KVTransferManager, one function for each generation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from rdma_comm import RDMACommunicator

HERE = "127.0.0.1"
LAYERS, BLOCKS, BLOCK_BYTES, SCALE_BYTES = 4, 64, 1024, 32

Array = np.ndarray[Any, np.dtype[np.uint8]]


class Cache:
    """Plain memory of one side: random bytes on prefill, zeros on decode."""

    def __init__(self, seed: int | None, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        shapes = [(BLOCKS, block_bytes)] * 2 + [(BLOCKS, SCALE_BYTES)] * 2
        if seed is None:
            made = [np.zeros((LAYERS, *shape), np.uint8) for shape in shapes]
        else:
            random = np.random.default_rng(seed)
            made = [random.integers(1, 256, (LAYERS, *shape), np.uint8) for shape in shapes]
        self.keys, self.values, self.key_scales, self.value_scales = made

    @staticmethod
    def pointers(tensor: Array) -> list[int]:
        """As engines take them from their tensors: one integer for each layer."""
        return [layer.ctypes.data for layer in tensor]


def first(role: str, port: str, cache: Cache) -> RDMACommunicator:
    return RDMACommunicator(
        role,
        0,
        port,
        cache.pointers(cache.keys),
        cache.pointers(cache.values),
        BLOCKS,
        cache.block_bytes,
    )


def second(role: str, port: str, cache: Cache, tp_size: int = 1, tp_idx: int = 0) -> Any:
    return RDMACommunicator(
        role,
        0,
        port,
        cache.pointers(cache.keys),
        cache.pointers(cache.values),
        BLOCKS,
        cache.block_bytes,
        tp_size,
        tp_idx,
    )


def third(role: str, port: str, cache: Cache) -> RDMACommunicator:
    return RDMACommunicator(
        role,
        0,
        port,
        cache.pointers(cache.keys),
        cache.pointers(cache.values),
        BLOCKS,
        cache.block_bytes,
        cache.pointers(cache.key_scales),
        cache.pointers(cache.value_scales),
        SCALE_BYTES,
        1,
        0,
    )


def third_without_scales(role: str, port: str, cache: Cache) -> RDMACommunicator:
    return RDMACommunicator(
        role,
        0,
        port,
        cache.pointers(cache.keys),
        cache.pointers(cache.values),
        BLOCKS,
        cache.block_bytes,
        [],
        [],
        0,
        1,
        0,
    )


def third_by_name(role: str, port: str, cache: Cache) -> RDMACommunicator:
    return RDMACommunicator(
        splitwise_role=role,
        gpu_idx=0,
        port=port,
        key_cache_ptrs=cache.pointers(cache.keys),
        value_cache_ptrs=cache.pointers(cache.values),
        block_number=BLOCKS,
        block_bytes=cache.block_bytes,
        key_scale_ptrs=cache.pointers(cache.key_scales),
        value_scale_ptrs=cache.pointers(cache.value_scales),
        scale_block_bytes=SCALE_BYTES,
    )


GENERATIONS: dict[str, Callable[..., RDMACommunicator]] = {
    f.__name__: f for f in (first, second, third, third_without_scales, third_by_name)
}


class Pair:
    """A prefill and a decode side of one generation, connected."""

    def __init__(self, make: Callable[..., RDMACommunicator], stack: ExitStack) -> None:
        self.source, self.target = Cache(seed=7), Cache(seed=None)
        self.decode = stack.enter_context(closing(make("decode", "0", self.target)))
        self.prefill = stack.enter_context(closing(make("prefill", "0", self.source)))
        self.port = str(self.decode.port)
        self.status = self.prefill.connect(HERE, self.port)

    def write(self, local: Any, remote: Any, layer: int = 0) -> int:
        return self.prefill.write_cache(HERE, self.port, local, remote, layer)
