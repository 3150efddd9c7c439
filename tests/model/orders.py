"""What the machine is told to do: choices, few and small."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from support.cache import Shape
from support.patience import SCALE

BLOCKS = 16
# Odd sizes with paddings and scales; and blocks of which a write takes a while.
SMALL = Shape(layers=2, blocks=BLOCKS, block_bytes=48, padding=16, scale_bytes=8)
LARGE = Shape(layers=2, blocks=BLOCKS, block_bytes=max(8 << 10, round((64 << 10) / SCALE)))
MOST_UNDER_WAY = 12
TAGS = (1, 2, 3)
PATIENT_S = 30.0  # more than any write needs
SHORT_S = 0.5

Pairs = list[tuple[int, int]]


def some_of_them(count: int, dice_seed: int) -> Pairs:
    dice = random.Random(dice_seed)
    return [(dice.randrange(BLOCKS), dst) for dst in dice.sample(range(BLOCKS), count)]


# A few choices each: Hypothesis gives up histories of many thousands.
seeds = st.integers(0, 2**32)
some_pairs = st.builds(some_of_them, st.integers(0, 8), seeds)
all_pairs = st.builds(some_of_them, st.just(BLOCKS), seeds)
pairs_of_blocks = some_pairs | all_pairs
layer_ranges = st.sampled_from([None, range(1), range(1, 2), range(2)])
tags = st.sampled_from([0, 0, *TAGS])
senders = st.sampled_from([0, 0, 1])
lives_pinned = st.sampled_from([*[None] * 6, "this", "this", "former", "wrong"])
mostly = st.sampled_from([True, True, False])
away_for = st.integers(0, 4)  # steps
positions = st.integers(0, MOST_UNDER_WAY - 1)


@dataclass(frozen=True)
class Order:
    """What a write is asked to be, besides its blocks."""

    which: int
    layers: range | None
    tag: int
    pin: str | None
    is_connected_first: bool


orders = st.builds(Order, senders, layer_ranges, tags, lives_pinned, mostly)
plain_orders = st.builds(Order, senders, st.none(), tags, st.none(), mostly)
