"""A `support.cache.Cache` in GPU memory: the same bytes, guards and questions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from support import cuda
from support.cache import GUARD, Cache, Shape

# How the tensors lie in memory.
ARRANGEMENTS = (
    "device",  # an allocation for each
    "device-one",  # one allocation for all, each wherever the one before ends
    "device-virtual",  # the same, in several chunks of virtual memory
    "device-private",  # and those cannot be exported
)


class DeviceArray:
    """One tensor of one layer as `__cuda_array_interface__` tells of it."""

    def __init__(self, place: cuda.Place, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._place = place  # keeps the memory
        self.__cuda_array_interface__ = {
            "version": 3,
            "data": (place.address + GUARD, False),
            "shape": shape,
            "typestr": dtype.str,
            "strides": None,
        }


class DeviceCache(Cache):
    def __init__(self, shape: Shape, seed: int, *, gpu: int, arrangement: str = "device") -> None:
        super().__init__(shape, seed)
        self._places = _places(arrangement, gpu, {key: raw.size for key, raw in self._raw.items()})
        self._upload(self._raw)
        self._raw = {}  # what is asked for is read from the device

    def place(self, name: str, layer: int) -> cuda.Place:
        """All of one tensor's bytes, guards included."""
        return self._places[name, layer]

    def _upload(self, raw: dict[tuple[str, int], np.ndarray]) -> None:
        for key, place in self._places.items():
            place.write(raw[key])

    def copy(self) -> Cache:
        """One in host memory with these bytes."""
        return Cache.holding(self.shape, self.raw())

    def raw(self) -> dict[tuple[str, int], np.ndarray]:
        return {key: place.read() for key, place in self._places.items()}

    def raw_of(self, name: str, layer: int) -> np.ndarray:
        return self._places[name, layer].read()

    def blocks(self, name: str, layer: int) -> np.ndarray:
        """A copy; what is written to it would be lost."""
        blocks = super().blocks(name, layer)
        blocks.flags.writeable = False
        return blocks

    def block_digests(self) -> dict[str, list[str]]:
        return self.copy().block_digests()

    def pointers(self, name: str) -> list[int]:
        return [self._places[name, layer].address + GUARD for layer in range(self.shape.layers)]

    def arrays(self, name: str) -> list[Any]:
        dtype = np.dtype(self.shape.dtype)
        block, _ = self.shape.tensors()[name]
        shape = (self.shape.blocks, block // dtype.itemsize)
        return [
            DeviceArray(self._places[name, layer], shape, dtype)
            for layer in range(self.shape.layers)
        ]

    def fill(self, seed: int) -> None:
        image = self.copy()
        image.fill(seed)
        self._upload(image.raw())

    def flip(self, name: str, layer: int, offset: int) -> None:
        place = self._places[name, layer]
        place.write(place.read(GUARD + offset, 1) ^ 0xFF, GUARD + offset)

    def swap(self, name: str, layer: int, one: int, other: int) -> None:
        image = self.copy()
        image.swap(name, layer, one, other)
        self._places[name, layer].write(image.raw_of(name, layer))

    def places(self) -> list[list[Any]]:
        """As Cache's, and with each the handle through which another process reads it."""
        return [
            [name, layer, place.address, place.size, place.handle()]
            for (name, layer), place in self._places.items()
        ]


def _places(
    arrangement: str, gpu: int, sizes: dict[tuple[str, int], int]
) -> dict[tuple[str, int], cuda.Place]:
    if arrangement == "device":
        return {key: cuda.Memory(gpu, size).place() for key, size in sizes.items()}
    # Sixteen, so that a tensor of an even size is as aligned as it would be on its own.
    lengths = {
        key: math.ceil(size / 16) * 16 if size % 2 == 0 else size for key, size in sizes.items()
    }
    total = sum(lengths.values())
    if arrangement == "device-one":
        memory = cuda.Memory(gpu, total)
    elif arrangement in ("device-virtual", "device-private"):
        memory = cuda.Virtual(gpu, total, is_exportable=arrangement == "device-virtual")
    else:
        raise ValueError(f"{arrangement!r} is none of {', '.join(ARRANGEMENTS)}")
    places = {}
    start = 0
    for key, size in sizes.items():
        places[key] = memory.place(start, size)
        start += lengths[key]
    return places
