"""A write that names what is not there is refused whole: no byte moves, and the way stays open."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from support.cache import Shape
from support.wire import Wire, image_of

GOOD = [1, 2, 3]

# local ids, remote ids, what the message must name
BAD_IDS = {
    "local-negative": ([1, -1, 3], GOOD, "local block id at index 1 is -1"),
    "local-too-large": ([1, 2, 32], GOOD, "local block id at index 2 is 32"),
    "remote-negative": (GOOD, [-5, 2, 3], "remote block id at index 0 is -5"),
    "remote-too-large": (GOOD, [1, 2, 32], "remote block id at index 2 is 32"),
    "beyond-32-bits": (GOOD, [1, 2**32, 3], "index 1 is 4294967296"),
    "beyond-64-bits": (GOOD, [1, 2**80, 3], "index 1"),
    "destination-twice": (GOOD, [7, 8, 7], "remote block id 7 at index 2 comes twice"),
    "fewer-remote": (GOOD, [1, 2], "3 local.* 2 remote"),
    "fewer-local": ([1], GOOD, "1 local.* 3 remote"),
    "float": ([1.0, 2.0, 3.0], GOOD, "local block id.*float"),
    "bool": (GOOD, [True, False, True], "remote block id.*bool"),
    "text": (GOOD, ["1", "2", "3"], "remote block id.*str"),
    "nothing": (GOOD, None, "remote.block.id.*NoneType"),
    "float-array": (np.array([1.0, 2.0, 3.0]), GOOD, "local.block.id.*int32 or int64"),
    "bool-array": (GOOD, np.array([True, False, True]), "remote.block.id.*int32 or int64"),
    "unsigned-array": (GOOD, np.array([1, 2, 3], np.uint32), "remote.block.id.*int32 or int64"),
    "two-dimensions": (np.array([[1, 2, 3]]), GOOD, "local.block.id.*dimension"),
    "no-dimension": (GOOD, np.array(1), "remote.block.id.*dimension"),
}


@pytest.mark.parametrize(("src", "dst", "message"), BAD_IDS.values(), ids=BAD_IDS.keys())
def test_bad_ids_are_refused_whole(wire: Wire, src: object, dst: object, message: str):
    prefill, decode = wire.pair()
    before = decode.digests()

    for layer_idx in (1, None):
        with pytest.raises((ValueError, TypeError), match=message):
            prefill.comm.write_cache_async(*decode.address, src, dst, layer_idx=layer_idx, tag=3)

    prefill.write(decode.address, [], [], tag=4)
    decode.received(4, 10)
    assert decode.notices() == []  # none with tag 3
    assert decode.digests() == before


@pytest.mark.parametrize(
    "layer_idx",
    [3, -1, 2**40, range(0, 4), range(2, 2), range(0, 3, 2), range(2, -1, -1), 1.0, "1", True],
    ids=repr,
)
def test_bad_layers_are_refused_whole(wire: Wire, layer_idx: object):
    prefill, decode = wire.pair()
    before = decode.digests()

    with pytest.raises((ValueError, TypeError), match="layer"):
        prefill.comm.write_cache_async(*decode.address, GOOD, GOOD, layer_idx=layer_idx)

    assert decode.digests() == before


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "5"], ids=repr)
def test_a_deadline_that_cannot_be_is_refused(wire: Wire, timeout_s: object):
    prefill, decode = wire.pair()
    before = decode.digests()

    with pytest.raises((ValueError, TypeError), match="timeout_s"):
        prefill.comm.write_cache_async(*decode.address, GOOD, GOOD, timeout_s=timeout_s)

    assert decode.digests() == before


def test_a_good_write_works_after_many_bad_ones(wire: Wire):
    prefill, decode = wire.pair()
    for src, dst, _ in BAD_IDS.values():
        with pytest.raises((ValueError, TypeError)):
            prefill.comm.write_cache(*decode.address, src, dst, 0)
    wanted = image_of(decode)
    wanted.take(prefill.cache, GOOD, [7, 8, 9], [0])

    prefill.comm.write_cache(*decode.address, GOOD, [7, 8, 9], 0)

    assert decode.digests() == wanted.digests()


def test_the_peers_block_count_bounds_remote_ids(wire: Wire):
    prefill, decode = wire.pair(Shape(blocks=100), Shape(blocks=8))
    before = decode.digests()

    with pytest.raises(ValueError, match=r"remote block id at index 0 is 8; must be 0\.\.7"):
        prefill.comm.write_cache(*decode.address, [50], [8], 0)

    assert decode.digests() == before


def test_writing_to_a_stranger_is_refused(wire: Wire):
    prefill, decode = wire.pair()
    wire_address = (decode.address[0], "1")

    with pytest.raises(Exception, match=r"127\.0\.0\.1.*connect"):
        prefill.comm.write_cache(*wire_address, [1], [1], 0)


def test_ids_are_read_before_the_call_returns(wire: Wire):
    """The caller may reuse its id arrays at once."""
    prefill, decode = wire.pair()
    wanted = image_of(decode)
    wanted.take(prefill.cache, GOOD, GOOD, range(3))
    src, dst = np.array(GOOD), np.array(GOOD)

    transfer = prefill.comm.write_cache_async(*decode.address, src, dst)
    src[:], dst[:] = 20, 30
    transfer.wait()

    assert decode.digests() == wanted.digests()


def endless() -> Iterator[int]:
    while True:
        yield 1


def test_an_iterator_is_not_a_list_of_ids(wire: Wire):
    prefill, decode = wire.pair()

    with pytest.raises(TypeError, match=r"local.block.ids"):
        prefill.comm.write_cache(*decode.address, endless(), GOOD, 0)
