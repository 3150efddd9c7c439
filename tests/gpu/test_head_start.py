"""Large writes are launched while their ids are still being checked."""

from __future__ import annotations

import numpy as np
import pytest

from support import cuda
from support.cache import Shape
from support.wire import Wire, image_of, random_map

SHAPE = Shape(layers=2, blocks=400, block_bytes=64)
BLOCKS = 300  # enough for a head start


def hurried() -> bool:
    return hasattr(cuda.driver(), "rdma_kv_fake_hurry")


@pytest.mark.parametrize("contiguous", [False, True])
def test_bytes_arrive_however_late_the_ids_are(gpus: Wire, contiguous: bool):
    """Where the driver is fake its clock runs ahead, so that many copies are late."""
    prefill, decode = gpus.pair(SHAPE)
    wanted = image_of(decode)
    if hurried():
        cuda.driver().rdma_kv_fake_hurry(1)
    try:
        for turn in range(40):
            src, dst = random_map(SHAPE, BLOCKS, turn)
            if contiguous:
                src, dst = list(range(BLOCKS)), list(range(50, 50 + BLOCKS))
            prefill.fill(turn)
            wanted.take(prefill.cache, src, dst, range(SHAPE.layers))
            prefill.write(decode.address, src, dst, tag=1)
            decode.received(1, 10)
            assert decode.digests() == wanted.digests()
    finally:
        if hurried():
            cuda.driver().rdma_kv_fake_hurry(0)
    if hurried() and not contiguous and gpus.transport == "cuda_ipc":
        [peer] = prefill.comm.stats().peers
        assert peer.posts > 40, "no copy was late: nothing was shown"


@pytest.mark.parametrize("wrong", [-1, SHAPE.blocks])
@pytest.mark.parametrize("at", [0, BLOCKS - 1])
def test_a_wrong_id_leaves_everything_as_it_was(gpus: Wire, wrong: int, at: int):
    prefill, decode = gpus.pair(SHAPE)
    before = decode.digests()
    src, dst = random_map(SHAPE, BLOCKS, 1)
    dst[at] = wrong

    for ids in (np.array(dst), dst):
        with pytest.raises(ValueError, match="must be 0"):
            prefill.comm.write_cache(*decode.address, src, ids)

    assert decode.digests() == before
    prefill.write(decode.address, [1], [2], tag=1)  # and the link goes on
    decode.received(1, 10)


def test_a_destination_twice_leaves_everything_as_it_was(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)
    before = decode.digests()
    src, dst = random_map(SHAPE, BLOCKS, 1)
    dst[-1] = dst[0]

    for _ in range(50):
        with pytest.raises(ValueError, match="twice"):
            prefill.comm.write_cache(*decode.address, src, dst)

    assert decode.digests() == before


def test_layers_that_are_not_there_are_refused_first(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)
    before = decode.digests()
    src, dst = random_map(SHAPE, BLOCKS, 1)

    with pytest.raises(ValueError, match="layer"):
        prefill.comm.write_cache(*decode.address, src, dst, range(1, 3))

    assert decode.digests() == before
