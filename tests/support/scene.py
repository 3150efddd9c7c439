"""What tests of processes that die or stop have in common: a cache, its lanes and spare blocks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from support.cache import Cache, Shape
from support.lanes import BEFORE, Lanes, Writes
from support.load import LANES
from support.patience import SCALE, eventually
from support.side import Side
from support.window import Window

# Large enough for a write to last a while, several times what a send queue of rdma holds.
SHAPE = Shape(layers=2, blocks=512, block_bytes=max(1 << 10, round((4 << 10) / SCALE)))
LOAD = {"blocks": SHAPE.blocks, "size": 64}
OF_LOAD = Lanes(SHAPE.blocks, LANES, LOAD["size"])
SPARE = list(range(LANES * LOAD["size"], SHAPE.blocks))  # no lane's
POINTS = max(4, round(10 / SCALE))
LAST_TAG = 2**32 - 1  # no lane's
SECONDS_AFTER = 2.0  # how long memory is watched after the last error


def wait_for_a_moment(chance: random.Random, one_write_s: float) -> None:
    """Until somewhere in the next two writes."""
    time.sleep(chance.uniform(0, 2 * one_write_s))


def after_failures(lanes: Iterable[Mapping[str, Any]]) -> dict[int, Writes]:
    """What each lane may hold: its last good write, and whatever came of the one that failed."""
    allowed: dict[int, Writes] = {}
    for number, lane in enumerate(lanes):
        allowed[number] = {lane["done"]}
        if lane["failed"] is not None:
            allowed[number].add(lane["failed"])
    return allowed


def after_notices(tags: Iterable[int]) -> dict[int, Writes]:
    """The same from decode's side: the last write that was announced, and perhaps the one after."""
    last: dict[int, int] = {}
    for tag in tags:
        lane, write = OF_LOAD.of_tag(tag)
        last[lane] = max(write, last.get(lane, write))
    return {
        lane: {last[lane], last[lane] + 1} if lane in last else {BEFORE, 0} for lane in range(LANES)
    }


def assert_in_order(memory: Cache, before: Cache, source: Cache, writes: dict[int, Writes]) -> None:
    assert OF_LOAD.faults(memory, before, source, writes) == []


def assert_next_write_works(prefill: Any, decode: Any, window: Window) -> Cache:
    """The next write arrives whole and alone; returns the memory after it."""
    before = window.look()
    before.take(source_of(prefill), SPARE, SPARE[::-1], range(SHAPE.layers))

    prefill.write(decode.address, SPARE, SPARE[::-1], tag=LAST_TAG)
    decode.received(LAST_TAG, 20)

    after = window.look()
    assert after.digests() == before.digests()
    return after


def source_of(prefill: Any) -> Cache:
    if isinstance(prefill, Side):
        return prefill.cache
    return Cache(prefill.shape, prefill.seed)


def assert_immutable(windows: Iterable[tuple[Window, Cache]]) -> None:
    """Each of these memories has not changed since, and does not for seconds to come."""
    kept = [(window, cache.digests()) for window, cache in windows]
    deadline = time.monotonic() + SECONDS_AFTER
    while time.monotonic() < deadline:
        for window, digests in kept:
            assert window.look().digests() == digests, "bytes landed after the end"
        time.sleep(0.1)


def await_end(decode: Side, within_s: float) -> None:
    """Until decode says that no link is left."""
    eventually(lambda: not decode.comm.peers(), within_s, "decode ends the link")
