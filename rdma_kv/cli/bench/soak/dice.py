"""What a writer does next; the same seed throws the same dice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .content import Ids
from .settings import SLOTS_PER_WRITER, Settings

# A little more than the longest stop of a decode: so most writes outlive one.
NORMAL_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Throw:
    """One write to come."""

    peer: int
    transport: str
    first_layer: int
    layer_count: int
    ids: Ids
    has_tag: bool
    is_pinned: bool  # to the life of the decode that is there when it begins
    timeout_s: float
    cancel_after_s: float | None
    is_sync: bool


class Dice:
    def __init__(self, settings: Settings, writer: int, owned: Sequence[Ids]) -> None:
        self._settings = settings
        self._owned = owned  # for each peer, the blocks that this writer may write to
        self._random = random.Random(f"{settings.seed} {writer}")
        self._numpy = np.random.default_rng((settings.seed, writer))

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def peer(self) -> int:
        return self._random.randrange(self._settings.peers)

    def transport(self) -> str:
        return self._random.choice(self._settings.transports)

    def batch(self) -> list[Throw]:
        """One to four writes that are under way at once, no two of them to the same block."""
        count = self._random.choice((1, 1, 1, 2, SLOTS_PER_WRITER))
        peers = [self.peer() for _ in range(count)]
        return [
            self._write(peer, self._owned[peer][i::count], is_alone=count == 1)
            for i, peer in enumerate(peers)
        ]

    def calm_write(self, peer: int, transport: str) -> Throw:
        """A plain one, which must succeed."""
        ids = self._some(self._owned[peer])
        layers = self._settings.layers
        return Throw(peer, transport, 0, layers, ids, True, False, NORMAL_DEADLINE_S, None, True)

    def shuffled(self, count: int) -> Ids:
        return self._numpy.permutation(count).astype(np.int64)

    def _write(self, peer: int, owned: Ids, is_alone: bool) -> Throw:
        first = self._random.randrange(self._settings.layers)
        count = self._random.randint(1, self._settings.layers - first)
        if self.chance(0.5):
            first, count = 0, self._settings.layers
        timeout_s, cancel_after_s = NORMAL_DEADLINE_S, None
        kind = self._random.random()
        if kind < 0.08:
            timeout_s = 10 ** self._random.uniform(-3.7, -1.3)
        elif kind < 0.18:
            cancel_after_s = self._random.choice((0.0, self._random.uniform(0, 0.003)))
        is_sync = is_alone and cancel_after_s is None and self.chance(0.5)
        ids = self._some(owned)
        has_tag = self.chance(0.5)
        return Throw(
            peer,
            self.transport(),
            first,
            count,
            ids,
            has_tag,
            self.chance(0.5),
            timeout_s,
            cancel_after_s,
            is_sync,
        )

    def _some(self, owned: Ids) -> Ids:
        """Few or many, in the order in which they lie or in any; sometimes none."""
        if self.chance(0.02):
            return owned[:0]
        count = max(1, round(math.exp(self._random.uniform(0, math.log(len(owned))))))
        if self.chance(0.5):
            begin = self._random.randrange(len(owned) - count + 1)
            return owned[begin : begin + count]
        return self._numpy.permutation(owned)[:count]
