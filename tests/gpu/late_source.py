"""A kernel of prefill that has not yet written the blocks when they are to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from support import cuda
from support.cache import GUARD, Cache
from support.device_cache import DeviceCache
from support.side import Side

NEW = 0xA5


class LateSource:
    """Fills the keys of one layer, and its guards not, once it is let go."""

    def __init__(self, prefill: Side, layer: int = 0, value: int = NEW) -> None:
        assert isinstance(prefill.cache, DeviceCache)
        self._prefill = prefill
        self._layer = layer
        self._value = value
        place = prefill.cache.place("key", layer)
        inner = cuda.Place(place, place.gpu, place.address + GUARD, place.size - 2 * GUARD)
        self.old = prefill.memory()
        self.stream = cuda.Stream(place.gpu)
        self._kernel = cuda.SlowFill(self.stream, inner, value)
        self.event = cuda.Event(place.gpu).record(self.stream)

    @property
    def new(self) -> Cache:
        """Prefill's memory when the kernel is over."""
        raw = {key: bytes_.copy() for key, bytes_ in self.old.raw().items()}
        raw["key", self._layer][GUARD:-GUARD] = np.uint8(self._value)
        return Cache.holding(self.old.shape, raw)

    def let_go(self) -> None:
        self._kernel.let_go()

    def finish(self) -> None:
        self._kernel.let_go()
        self.stream.synchronize()


@contextmanager
def late_source(prefill: Side, layer: int = 0, value: int = NEW) -> Iterator[LateSource]:
    """One that is let go in the end, whatever happens: else nothing could be freed."""
    source = LateSource(prefill, layer, value)
    try:
        yield source
    finally:
        source.finish()
