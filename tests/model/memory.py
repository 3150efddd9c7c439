"""What decode's memory may hold: for every block the contents that writes may have left there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from support.cache import Cache, Shape

Bytes = np.ndarray
Digests = dict[str, list[str]]  # as of Cache.block_digests()
BEFORE_ALL = -1


def digest_of(content: Bytes | bytes) -> str:
    return hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=8).hexdigest()


class Image:
    """A cache as it was at one moment."""

    def __init__(self, cache: Cache) -> None:
        self.digests = cache.block_digests()
        self._content = {
            (name, layer): cache.blocks(name, layer).copy()
            for name in cache.shape.tensors()
            for layer in range(cache.shape.layers)
        }

    def candidate(self, name: str, layer: int, block: int, began: int) -> Candidate:
        digest = self.digests[f"{name}[{layer}]"][block]
        return Candidate(self._content[name, layer][block], digest, began)


@dataclass
class Candidate:
    """What one write brings, and when it was under way."""

    content: Bytes
    digest: str
    began: int
    ended: int | None = None


class Cell:
    """One block of one tensor in one layer."""

    def __init__(self, content: Candidate) -> None:
        content.ended = BEFORE_ALL
        self._may_hold: dict[int, Candidate] = {BEFORE_ALL: content}

    def begin(self, write: int, content: Candidate) -> None:
        self._may_hold[write] = content

    def end(self, write: int, at: int, *, succeeded: bool) -> None:
        """A success overwrites what had ended before it began; a failure leaves either, or both."""
        mine = self._may_hold[write]
        mine.ended = at
        if succeeded:
            self._may_hold = {
                other: content
                for other, content in self._may_hold.items()
                if content.ended is None or content.ended >= mine.began
            }

    @property
    def is_settled(self) -> bool:
        """Nothing that is under way writes here."""
        return all(content.ended is not None for content in self._may_hold.values())

    def check(self, found: str, read: Callable[[], bytes]) -> str | None:
        """What is wrong with a block whose digest is `found`; None: nothing."""
        for content in self._may_hold.values():
            if content.digest == found:
                self._freeze(content.content, found)
                return None
        if len(self._may_hold) == 1:
            return "holds neither what was written nor is it as it was left"
        actual = np.frombuffer(read(), np.uint8)
        alien = np.logical_and.reduce([actual != c.content for c in self._may_hold.values()])
        if alien.any():
            return (
                f"byte {int(alien.argmax())} is of none of {len(self._may_hold)} contents "
                f"({int(alien.sum())} such bytes)"
            )
        if self.is_settled and digest_of(actual) != found:
            return "changes although nothing writes to it"
        self._freeze(actual, digest_of(actual))
        return None

    def _freeze(self, actual: Bytes, digest: str) -> None:
        """From now on it is what it was seen to be, until it is written again."""
        if self.is_settled:
            self._may_hold = {BEFORE_ALL: Candidate(actual, digest, BEFORE_ALL, BEFORE_ALL)}


class Memory:
    """All of decode's cache: its blocks, and what lies around them and never changes."""

    def __init__(self, shape: Shape, image: Image) -> None:
        self._shape = shape
        self._clock = 0
        self._outside = {tensor: digests[-1] for tensor, digests in image.digests.items()}
        self._cells = {
            (name, layer, block): Cell(image.candidate(name, layer, block, BEFORE_ALL))
            for name in shape.tensors()
            for layer in range(shape.layers)
            for block in range(shape.blocks)
        }

    def begin(
        self, write: int, image: Image, src: Iterable[int], dst: Iterable[int], layers: range
    ) -> None:
        self._clock += 1
        for from_, to in zip(src, dst, strict=True):
            for name in self._shape.tensors():
                for layer in layers:
                    content = image.candidate(name, layer, from_, self._clock)
                    self._cells[name, layer, to].begin(write, content)

    def end(self, write: int, dst: Iterable[int], layers: range, *, succeeded: bool) -> None:
        self._clock += 1
        for block in dst:
            for name in self._shape.tensors():
                for layer in layers:
                    self._cells[name, layer, block].end(write, self._clock, succeeded=succeeded)

    def is_settled(self, tensor: str, block: int) -> bool:
        """Of "key[0]" and the like."""
        name, layer = tensor[:-1].split("[")
        return self._cells[name, int(layer), block].is_settled

    def check(self, found: Digests, read: Callable[[str, int, int], bytes]) -> None:
        """Compares; `read` gives the bytes of a block (name, layer, block)."""
        wrong = [
            f"{tensor}: bytes outside of the blocks changed"
            for tensor, digest in self._outside.items()
            if found[tensor][-1] != digest
        ]
        for (name, layer, block), cell in self._cells.items():
            why = cell.check(
                found[f"{name}[{layer}]"][block],
                partial(read, name, layer, block),
            )
            if why is not None:
                wrong.append(f"{name}[{layer}] block {block} {why}")
        assert not wrong, f"{len(wrong)} places are wrong: " + "; ".join(wrong[:8])


def changed_places(before: Digests, after: Digests) -> Sequence[tuple[str, int]]:
    """(tensor, block) of each difference; one behind the last block: what is outside."""
    return [
        (tensor, block)
        for tensor, digests in before.items()
        for block, digest in enumerate(digests)
        if after[tensor][block] != digest
    ]
