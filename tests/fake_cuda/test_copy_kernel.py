"""The copy kernel, compiled as C++, moves the bytes that it is told to and no others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fake_cuda.copy_job import CopyJob, Launcher, Side, Work, lay_out
from support import cuda

IMAGE = b"FAKE CUBIN\n__global__ rdma_kv_copy\0"


@pytest.fixture(scope="module")
def launcher(fake: None) -> Iterator[Launcher]:
    assert cuda.driver().rdma_kv_fake_copy_job_bytes() == np.dtype(np.uint8).itemsize * _job_bytes()
    made = Launcher(0, IMAGE)
    yield made
    del made


def _job_bytes() -> int:
    return len(bytes(CopyJob()))


@st.composite
def works(draw: st.DrawFn) -> Work:
    width = draw(st.sampled_from([1, 2, 4, 8, 16]))
    tensors = draw(st.integers(1, 4))
    # Up to three pieces a block, and sizes around a piece's end.
    accesses = st.one_of(st.integers(1, 300), st.sampled_from([127, 128, 129, 256, 257]))
    sizes = [width * draw(accesses) for _ in range(tensors)]
    layers = draw(st.integers(1, 3))
    first = draw(st.integers(0, layers - 1))
    count = draw(st.integers(1, layers - first))
    blocks = draw(st.integers(1, 6))
    dst_ids = draw(st.permutations(range(blocks)))[: draw(st.integers(1, blocks))]
    src_ids = [draw(st.integers(0, blocks - 1)) for _ in dst_ids]
    padding = st.integers(0, 3).map(lambda units: units * width)

    def side() -> Side:
        is_packed = draw(st.booleans())
        made = Side([size + (0 if is_packed else draw(padding)) for size in sizes], is_packed)
        return lay_out(made, layers, blocks, width, len(dst_ids), count)

    pairs = list(zip(src_ids, dst_ids, strict=True))
    return Work(width, sizes, layers, first, count, pairs, side(), side())


def run(launcher: Launcher, work: Work, seed: int, **how: object) -> tuple[np.ndarray, Work, int]:
    """What the destination is afterwards, what it should be, and the value of `done`."""
    noise = np.random.default_rng(seed)
    src, dst = (noise.integers(0, 256, side.size, np.uint8) for side in (work.src, work.dst))
    here, there = (cuda.Memory(0, side.size).place() for side in (work.src, work.dst))
    here.write(src)
    there.write(dst)
    done = launcher.launch(work, here, there, **how)
    return there.read(), work.expected(src, dst), done


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    work=works(),
    grid=st.integers(1, 5),
    threads=st.sampled_from([32, 64, 512]),
    asks=st.sampled_from([None, False]),
    seed=st.integers(0, 1000),
)
def test_every_byte_is_where_the_model_has_it(launcher, work, grid, threads, asks, seed):
    event(f"width {work.width}, {work.src.is_packed} -> {work.dst.is_packed}")

    found, wanted, done = run(launcher, work, seed, grid=grid, threads=threads, is_stopped=asks)

    assert np.array_equal(found, wanted)
    assert launcher.word(0) == done


def simple_work(blocks: int = 4, size: int = 64) -> Work:
    sides = [lay_out(Side([size], False), 1, blocks, 16, blocks, 1) for _ in range(2)]
    pairs = [(i, blocks - 1 - i) for i in range(blocks)]
    return Work(16, [size], 1, 0, 1, pairs, *sides)


def test_a_copy_that_was_stopped_moves_nothing_and_still_ends(launcher: Launcher):
    work = simple_work()
    before = np.random.default_rng(3)

    found, _, done = run(launcher, work, 3, grid=3, threads=64, is_stopped=True)

    before.integers(0, 256, work.src.size, np.uint8)
    assert np.array_equal(found, before.integers(0, 256, work.dst.size, np.uint8))
    assert (launcher.word(0), launcher.word(1)) == (done, done)


def test_a_copy_that_does_not_ask_ignores_the_stop_word(launcher: Launcher):
    launcher.words.bytes[8:12] = 0xFF

    found, wanted, done = run(launcher, simple_work(), 4, grid=2, threads=64)

    assert np.array_equal(found, wanted)
    assert launcher.word(1) != done


def test_many_blocks_and_few_threads(launcher: Launcher):
    found, wanted, _ = run(launcher, simple_work(3000, 16), 5, grid=1, threads=32)

    assert np.array_equal(found, wanted)
