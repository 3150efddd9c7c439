"""What the soak takes for right and for wrong, one byte at a time."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rdma_kv.cli.bench.soak import cache_file
from rdma_kv.cli.bench.soak.content import Content
from rdma_kv.cli.bench.soak.geometry import NOBODY, decode_geometry, owners_of_blocks
from rdma_kv.cli.bench.soak.mirror import Life, Write
from rdma_kv.cli.bench.soak.resources import Checkpoint, growth
from rdma_kv.cli.bench.soak.settings import Settings

SETTINGS = Settings(peers=2, prefills=1, threads=1, layers=2, blocks=64, block_bytes=128)
CONTENT = Content(SETTINGS.seed, SETTINGS.block_bytes)
PEER = 1  # with gaps between its blocks


@pytest.fixture
def life():
    geometry = decode_geometry(SETTINGS, PEER)
    descriptor = cache_file.create(geometry, CONTENT)
    yield Life(PEER, 0, cache_file.path_of(descriptor), geometry, CONTENT)
    os.close(descriptor)


def a_write(life: Life, sequence: int = 1) -> Write:
    """Of two blocks, in both layers."""
    ids = np.array([3, 9], np.int64)
    expected = {
        r.number: CONTENT.blocks(0, sequence, r.number, ids, r.block_bytes)
        for r in life.cache.geometry.regions
    }
    return Write("a write", PEER, 0, SETTINGS.layers, ids, expected)


def land(life: Life, write: Write) -> None:
    for region in life.cache.geometry.regions:
        memory = region.of(life.cache.memory)
        memory[write.ids, : region.block_bytes] = write.expected[region.number]


def byte(life: Life, region: int, block: int, column: int) -> np.ndarray:
    found = life.cache.geometry.regions[region]
    return found.of(life.cache.memory)[block, column : column + 1]


def test_a_write_that_landed_whole_is_right(life):
    write = a_write(life)
    land(life, write)

    assert life.holds(write)
    assert life.settle_success(write) is None
    assert life.check_before(write) is None


def test_one_wrong_byte_after_a_success_is_named(life):
    write = a_write(life)
    land(life, write)
    byte(life, 5, 9, 77)[:] ^= 1

    assert not life.holds(write)
    problem = life.settle_success(write)
    assert "layer 1 V: 1 bytes in 1 blocks" in problem
    assert "block 9 at byte 77" in problem


def test_a_failed_write_may_leave_old_and_new_bytes_but_no_others(life):
    write = a_write(life)
    byte(life, 0, 3, 0)[:] = write.expected[0][0, 0]

    assert life.settle_failure(write) is None

    byte(life, 0, 3, 1)[:] = ~write.expected[0][0, 1]
    assert "neither old nor new" in life.settle_failure(write)


def test_a_byte_that_lands_after_the_failure_is_found_before_the_next_write(life):
    write = a_write(life)
    assert life.settle_failure(write) is None

    land(life, write)

    assert "changed after its last write had ended" in life.check_before(a_write(life, 2))


def test_a_byte_that_lands_after_the_failure_is_found_when_all_is_looked_at(life):
    write = a_write(life)
    assert life.settle_failure(write) is None
    seen, problems = life.check_blocks(write.ids)
    assert (seen > write.bytes, problems) == (True, [])

    byte(life, 0, 9, 5)[:] ^= 1

    assert len(life.check_blocks(write.ids)[1]) == 1


def test_bytes_may_come_late_only_until_everybody_has_answered_again(life):
    write = a_write(life)
    assert life.settle_failure(write) is None
    life.loosen(write)
    assert life.is_loose(write.ids[1:])

    land(life, write)
    assert life.tighten() == []
    assert not life.is_loose(write.ids)

    byte(life, 0, 9, 5)[:] ^= 1
    assert len(life.check_blocks(write.ids)[1]) == 1


@pytest.mark.parametrize("where", ["gap", "guard", "block of nobody"])
def test_a_byte_outside_of_all_blocks_is_found(life, where):
    outside = cache_file.Outside(SETTINGS, PEER, life.cache.geometry, CONTENT)
    assert outside.problem(life.cache) is None
    region = life.cache.geometry.regions[2]
    owners = owners_of_blocks(SETTINGS, PEER)

    if where == "guard":
        life.cache.memory[region.offset - 1] ^= 1
    elif where == "gap":
        byte(life, 2, 5, region.block_bytes)[:] ^= 1
    else:
        byte(life, 2, int(np.flatnonzero(owners == NOBODY)[0]), 0)[:] ^= 1

    assert "1 bytes outside" in outside.problem(life.cache)


def test_no_two_writes_blocks_or_regions_leave_the_same_word():
    ids = np.arange(8, dtype=np.int64)
    words = [
        CONTENT.blocks(slot, sequence, region, ids, 64).view(np.uint64)
        for slot in (0, 1)
        for sequence in (1, 2)
        for region in (0, 1)
    ]

    assert len(np.unique(np.concatenate(words))) == 8 * 8 * 8


def checkpoint(at_s: float, fds: int = 100, anon_kib: int = 200_000) -> Checkpoint:
    return Checkpoint(at_s, fds, 20, anon_kib, 80, 20, 50_000, 0, 0)


def test_resources_are_flat_when_memory_only_wobbles():
    series = [checkpoint(i, anon_kib=200_000 + 500 * (i % 3)) for i in range(9)]

    assert growth(series) == []


def test_one_more_descriptor_at_the_end_is_growth():
    series = [checkpoint(i, fds=100 + (i > 5)) for i in range(9)]

    assert growth(series) == ["prefill_fds grew from 100 to 101"]


def test_memory_that_keeps_growing_is_growth():
    series = [checkpoint(i, anon_kib=200_000 + 4000 * i) for i in range(9)]

    assert growth(series) == ["prefill_anon_kib grew from 204000 to 228000"]
