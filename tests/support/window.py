"""Looking into a peer's memory from outside: it need not help, and may be stopped meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from support import cuda
from support.cache import Cache
from support.peer import RemoteSide
from support.side import Side


class Window:
    """All memory of one side, read without its help. Made while it still answers."""

    def __init__(self, side: Side | RemoteSide) -> None:
        self._side = side
        if isinstance(side, RemoteSide):
            self._places = side.places()
            self._memory = Path(f"/proc/{side.process.pid}/mem")
            # Of memory on a GPU, which has a handle besides.
            self._opened = {
                (name, layer): cuda.Opened(0, *handle).place(0, size)
                for name, layer, _, size, *handle in self._places
                if handle
            }

    def look(self) -> Cache:
        """A copy of all bytes as they are now."""
        if isinstance(self._side, Side):
            return self._side.memory()
        if self._opened:
            raw = {key: place.read() for key, place in self._opened.items()}
            return Cache.holding(self._side.shape, raw)
        raw = {}
        descriptor = os.open(self._memory, os.O_RDONLY)
        try:
            for name, layer, address, size, *_ in self._places:
                data = bytearray(size)
                assert os.preadv(descriptor, [data], address) == size
                raw[name, layer] = np.frombuffer(data, np.uint8)
        finally:
            os.close(descriptor)
        return Cache.holding(self._side.shape, raw)
