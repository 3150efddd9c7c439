"""What a block holds after a write: computed from who wrote it, when, and which block it is.

So anyone can tell by himself what must be there, and no two blocks, writes or layers look alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1


class Content:
    def __init__(self, seed: int, most_block_bytes: int) -> None:
        self._seed = _mix(seed + 1)
        random = np.random.default_rng(seed)
        self._pattern: Words = random.integers(0, _MASK, most_block_bytes // 8, np.uint64)

    def blocks(self, slot: int, sequence: int, region: int, ids: Ids, block_bytes: int) -> Bytes:
        """Of these blocks of one region, as the write `sequence` of `slot` leaves them."""
        write = _mix(self._seed ^ _mix(slot << 40 | sequence << 16 | region))
        keys = _mix_all(ids.astype(np.uint64) + np.uint64(write))
        words = self._pattern[: block_bytes // 8]
        return (words[None, :] ^ keys[:, None]).view(np.uint8)

    def untouched(self, count: int) -> Bytes:
        """What memory holds that nobody has written to: no two neighbouring blocks look alike."""
        tile = np.resize(self._pattern[:509].view(np.uint8), 4079)
        return np.resize(tile, count)


def _mix(value: int) -> int:
    """splitmix64: neighbouring numbers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _mix_all(values: Words) -> Words:
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: Words = values ^ values >> np.uint64(31)
    return mixed
