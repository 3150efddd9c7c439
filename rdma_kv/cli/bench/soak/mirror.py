"""What each block of a decode must hold, as far as one prefill process is to blame.

After a success: what was written, whole. After a failure: each byte is the old or the new one, and
from then on the blocks do not change any more. Every compare that fails is a corruption.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .cache_file import CacheFile
from .content import Bytes, Content, Ids
from .geometry import HEADER_BYTES, Geometry, Region
from .settings import Settings

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Write:
    """One write: where it goes, and what it leaves there, for each region that it writes."""

    what: str
    peer: int
    first_layer: int
    layer_count: int
    ids: Ids
    expected: dict[int, Bytes]

    @property
    def bytes(self) -> int:
        return sum(blocks.size for blocks in self.expected.values())


class Life:
    """One life of a decode: its memory, and what must be in it."""

    def __init__(self, peer: int, number: int, path: str, geometry: Geometry, content: Content):
        self.peer = peer
        self.number = number
        self.cache = CacheFile(path, geometry)
        self._mirror = np.empty(geometry.file_bytes, np.uint8)
        self._mirror[HEADER_BYTES:] = content.untouched(geometry.file_bytes - HEADER_BYTES)
        # Blocks of writes that ended as NotQuiesced: their bytes may still come.
        self._loose: list[Write] = []
        self._lock = threading.Lock()

    def holds(self, write: Write) -> bool:
        """Whether all of it is there."""
        return all(
            np.array_equal(self._actual(region)[write.ids, : region.block_bytes], blocks)
            for region, blocks in self._parts(write)
        )

    def check_before(self, write: Write) -> str | None:
        """Whether the blocks have stayed as they were left."""
        return self._check(
            write,
            lambda actual, old, _: actual == old,
            "changed after its last write had ended, before",
            is_before=True,
        )

    def settle_success(self, write: Write) -> str | None:
        return self._check(write, lambda actual, _, new: actual == new, "wrong after a success")

    def settle_failure(self, write: Write) -> str | None:
        return self._check(
            write,
            lambda actual, old, new: (actual == old) | (actual == new),
            "neither old nor new after a failure",
        )

    def loosen(self, write: Write) -> None:
        """It failed, and some of it may still land: until :meth:`tighten`."""
        with self._lock:
            self._loose.append(write)

    def is_loose(self, ids: Ids) -> bool:
        with self._lock:
            return any(np.isin(ids, write.ids).any() for write in self._loose)

    def tighten(self) -> list[str]:
        """All peers have answered again: from now on these blocks must not change, either."""
        with self._lock:
            loose, self._loose = self._loose, []
        return [problem for write in loose if (problem := self.settle_failure(write))]

    def check_blocks(self, ids: Ids) -> tuple[int, list[str]]:
        """Looks at these blocks in every region; returns how many bytes, and what is wrong."""
        seen = 0
        problems = []
        for region in self.cache.geometry.regions:
            actual, mirror = self._actual(region)[ids], region.of(self._mirror)[ids]
            seen += actual.size
            if problem := self._wrong(region, ids, actual, actual == mirror, mirror):
                problems.append(f"{problem}; changed after its last write had ended")
                region.of(self._mirror)[ids] = actual
        return seen, problems

    # ---- private

    def _check(
        self,
        write: Write,
        is_right: Callable[[Bytes, Bytes, Bytes], Flags],
        what: str,
        is_before: bool = False,
    ) -> str | None:
        """Compares, and takes over what is there, so that one fault is told once."""
        found = None
        for region, new in self._parts(write):
            mirror = region.of(self._mirror)
            actual = self._actual(region)[write.ids, : region.block_bytes]
            old = mirror[write.ids, : region.block_bytes]
            right = is_right(actual, old, new)
            problem = self._wrong(region, write.ids, actual, right, old if is_before else new)
            mirror[write.ids, : region.block_bytes] = actual
            if problem and not found:
                found = f"{problem}; {what}: {write.what}"
        return found

    def _wrong(
        self, region: Region, ids: Ids, actual: Bytes, is_right: Flags, expected: Bytes
    ) -> str | None:
        if is_right.all():
            return None
        rows, columns = np.nonzero(~is_right)
        row, column = int(rows[0]), int(columns[0])
        return (
            f"decode {self.peer}, life {self.number}, {region.name}: {len(rows)} bytes in "
            f"{len(np.unique(rows))} blocks are wrong, the first in block {int(ids[row])} at byte "
            f"{column}: {actual[row, column]:#04x}, not {expected[row, column]:#04x}"
        )

    def _parts(self, write: Write) -> list[tuple[Region, Bytes]]:
        regions = self.cache.geometry.of_layers(write.first_layer, write.layer_count)
        return [(region, write.expected[region.number]) for region in regions]

    def _actual(self, region: Region) -> Bytes:
        return region.of(self.cache.memory)


class Lives:
    """The lives of one decode; older ones are kept until no write can be about them."""

    def __init__(self, settings: Settings, peer: int, geometry: Geometry, content: Content) -> None:
        self._peer = peer
        self._geometry = geometry
        self._content = content
        self._lives: list[Life] = []
        self._lock = threading.Lock()

    def begin(self, number: int, path: str) -> None:
        """Before the new process starts, and after the old one has ended."""
        life = Life(self._peer, number, path, self._geometry, self._content)
        with self._lock:
            self._lives.append(life)

    def current(self) -> Life:
        with self._lock:
            return self._lives[-1]

    def since(self, first: Life) -> list[Life]:
        """That one and all that came after it."""
        with self._lock:
            return [life for life in self._lives if life.number >= first.number]

    def forget_old(self) -> None:
        """While nobody writes."""
        with self._lock:
            del self._lives[:-1]
