"""A KV cache in NumPy memory whose every byte is known: payload, padding and guards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

GUARD = 192  # bytes before the first and after the last block; they must never change


@dataclass(frozen=True)
class Shape:
    """One side's cache. `padding` lies between the blocks of keys and values."""

    layers: int = 3
    blocks: int = 32
    block_bytes: int = 256
    padding: int = 0
    key_only: bool = False
    scale_bytes: int = 0  # of a block; 0: no scales
    dtype: str = "uint8"  # of the arrays that the communicator is given; "": it is given pointers
    tp_size: int = 1
    tp_rank: int = 0

    def but(self, **change: Any) -> Shape:
        return replace(self, **change)

    def tensors(self) -> dict[str, tuple[int, int]]:
        """Name -> (block bytes, stride)."""
        plain = (self.block_bytes, self.block_bytes + self.padding)
        scale = (self.scale_bytes, self.scale_bytes)
        names = ["key"] if self.key_only else ["key", "value"]
        result = dict.fromkeys(names, plain)
        if self.scale_bytes:
            result |= {f"{name}_scale": scale for name in names}
        return result


class Cache:
    """Allocates the tensors of a shape and fills every byte of them from a seed."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self._raw: dict[tuple[str, int], np.ndarray] = {}
        noise = np.random.default_rng(seed)
        for name, (block, stride) in shape.tensors().items():
            for layer in range(shape.layers):
                size = (shape.blocks - 1) * stride + block + 2 * GUARD
                self._raw[name, layer] = np.frombuffer(bytearray(noise.bytes(size)), np.uint8)

    def copy(self) -> Cache:
        """Another one with these bytes."""
        return self.holding(self.shape, {key: raw.copy() for key, raw in self._raw.items()})

    @classmethod
    def holding(cls, shape: Shape, raw: dict[tuple[str, int], np.ndarray]) -> Cache:
        """One of given bytes, guards and padding included."""
        made = cls.__new__(cls)
        made.shape, made._raw = shape, raw
        return made

    def raw(self) -> dict[tuple[str, int], np.ndarray]:
        """All bytes of each tensor and layer, guards and padding included."""
        return self._raw

    def raw_of(self, name: str, layer: int) -> np.ndarray:
        """The same of one."""
        return self._raw[name, layer]

    def blocks(self, name: str, layer: int) -> np.ndarray:
        """A view of the payload: (blocks, block bytes)."""
        block, stride = self.shape.tensors()[name]
        payload = self.raw_of(name, layer)[GUARD:]
        return np.lib.stride_tricks.as_strided(
            payload, (self.shape.blocks, block), (stride, 1), writeable=True
        )

    def pointers(self, name: str) -> list[int]:
        return [self.blocks(name, layer).ctypes.data for layer in range(self.shape.layers)]

    def arrays(self, name: str) -> list[np.ndarray]:
        dtype = np.dtype(self.shape.dtype)
        return [self.blocks(name, layer).view(dtype) for layer in range(self.shape.layers)]

    def fill(self, seed: int) -> None:
        """New payload in every block; padding and guards stay."""
        noise = np.random.default_rng(seed)
        for name, (block, _) in self.shape.tensors().items():
            for layer in range(self.shape.layers):
                content = np.frombuffer(noise.bytes(self.shape.blocks * block), np.uint8)
                self.blocks(name, layer)[:] = content.reshape(self.shape.blocks, block)

    def flip(self, name: str, layer: int, offset: int) -> None:
        """Changes one byte, so many after the first of block 0; negative: of the guard."""
        self._raw[name, layer][GUARD + offset] ^= 0xFF

    def swap(self, name: str, layer: int, one: int, other: int) -> None:
        blocks = self.blocks(name, layer)
        blocks[[one, other]] = blocks[[other, one]]

    def places(self) -> list[list[Any]]:
        """[tensor, layer, address, bytes] of all memory, guards included."""
        return [
            [name, layer, raw.ctypes.data, raw.size] for (name, layer), raw in self._raw.items()
        ]

    def digests(self) -> dict[str, str]:
        """One digest per tensor and layer over all of its bytes, guards and padding included."""
        return {f"{name}[{layer}]": _digest(raw) for (name, layer), raw in self.raw().items()}

    def block_digests(self) -> dict[str, list[str]]:
        """Per tensor and layer one digest of each block, then one of all bytes around them."""
        found = {}
        for (name, layer), raw in self._raw.items():
            blocks = self.blocks(name, layer)
            found[f"{name}[{layer}]"] = [_digest(block) for block in blocks]
            found[f"{name}[{layer}]"].append(_digest(*self._around(name, raw)))
        return found

    def _around(self, name: str, raw: np.ndarray) -> list[np.ndarray]:
        """Guards and paddings."""
        block, stride = self.shape.tensors()[name]
        paddings = np.lib.stride_tricks.as_strided(
            raw[GUARD + block :], (self.shape.blocks - 1, stride - block), (stride, 1)
        )
        return [raw[:GUARD], np.ascontiguousarray(paddings), raw[-GUARD:]]

    def take(
        self, source: Cache, src: Sequence[int], dst: Sequence[int], layers: Sequence[int]
    ) -> None:
        """What a correct write does to this cache, computed from first principles."""
        for name, (mine, _) in self.shape.tensors().items():
            theirs = source.shape.tensors()[name][0]
            start = max(self.shape.tp_rank * mine, source.shape.tp_rank * theirs)
            end = min((self.shape.tp_rank + 1) * mine, (source.shape.tp_rank + 1) * theirs)
            here = slice(start - self.shape.tp_rank * mine, end - self.shape.tp_rank * mine)
            there = slice(
                start - source.shape.tp_rank * theirs, end - source.shape.tp_rank * theirs
            )
            for layer in layers:
                from_, to = source.blocks(name, layer), self.blocks(name, layer)
                to[list(dst), here] = from_[list(src), there]

    def take_whole(
        self, source: Cache, src: Sequence[int], dst: Sequence[int], layers: Sequence[int]
    ) -> None:
        """The same where every rank holds the same blocks, whole."""
        for name in self.shape.tensors():
            for layer in layers:
                self.blocks(name, layer)[list(dst)] = source.blocks(name, layer)[list(src)]


def _digest(*parts: np.ndarray) -> str:
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        # A copy, made by NumPy: ThreadSanitizer leaves its reads alone, and not those of Python,
        # of which it could not know that the peer's writes come after.
        state.update(part.copy().data)
    return state.hexdigest()
