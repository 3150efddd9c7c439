"""The bytes named arrive, and no other byte changes: not in the padding, not beyond the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from support.cache import Shape
from support.patience import SCALE
from support.wire import Wire, image_of, random_map

SHAPES = {
    "key+value": Shape(),
    "one-layer": Shape(layers=1),
    "key-only": Shape(key_only=True),
    "scales": Shape(scale_bytes=8),
    "key-only+scale": Shape(key_only=True, scale_bytes=4),
    "padding": Shape(padding=64),
    "padding+scales": Shape(padding=32, scale_bytes=16),
    "pointers": Shape(dtype=""),
    "float16": Shape(dtype="float16"),
    "odd-sizes": Shape(layers=2, blocks=13, block_bytes=77, dtype="uint8"),
    "tiny-blocks": Shape(layers=2, blocks=200, block_bytes=1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_random_map_arrives_and_nothing_else_changes(wire: Wire, shape: Shape):
    prefill, decode = wire.pair(shape)
    src, dst = random_map(shape, shape.blocks * 2 // 3, seed=1)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, range(shape.layers))

    prefill.write(decode.address, src, dst)

    assert decode.digests() == wanted.digests()


def test_every_block_at_once_in_both_orders(wire: Wire):
    shape = Shape()
    prefill, decode = wire.pair(shape)
    up, down = list(range(shape.blocks)), list(range(shape.blocks))[::-1]
    wanted = image_of(decode)

    for dst in (up, down):
        wanted.take(prefill.cache, up, dst, range(shape.layers))
        prefill.write(decode.address, up, dst)

        assert decode.digests() == wanted.digests()


@pytest.mark.parametrize("layers", [(0, 1), (2, 3), (1, 3), (0, 4), (3, 4)])
def test_a_range_of_layers_leaves_the_others_alone(wire: Wire, layers: tuple[int, int]):
    shape = Shape(layers=4)
    prefill, decode = wire.pair(shape)
    src, dst = random_map(shape, 9, seed=2)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, range(*layers))

    prefill.write(decode.address, src, dst, layers=layers)

    assert decode.digests() == wanted.digests()


def test_layer_by_layer_with_the_plain_call(wire: Wire):
    shape = Shape(layers=4)
    prefill, decode = wire.pair(shape)
    wanted = image_of(decode)

    for layer in range(shape.layers):
        src, dst = random_map(shape, 7, seed=layer)
        wanted.take(prefill.cache, src, dst, [layer])
        assert prefill.comm.write_cache(*decode.address, src, dst, layer) is None
        assert decode.digests() == wanted.digests()


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        lambda ids: np.array(ids, dtype=np.int32),
        lambda ids: np.array(ids, dtype=np.int64),
        lambda ids: np.repeat(np.array(ids, dtype=np.int32), 3)[::3],
        lambda ids: memoryview(np.array(ids, dtype=np.int64)),
    ],
    ids=["list", "tuple", "int32", "int64", "strided", "memoryview"],
)
def test_ids_come_in_many_forms(wire: Wire, kind):
    prefill, decode = wire.pair()
    src, dst = random_map(decode.shape, 12, seed=3)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, [1])

    prefill.comm.write_cache(*decode.address, kind(src), kind(dst), 1)

    assert decode.digests() == wanted.digests()


def test_one_source_block_may_go_to_many_places(wire: Wire):
    prefill, decode = wire.pair()
    wanted = image_of(decode)
    wanted.take(prefill.cache, [5] * 8, range(8, 16), range(3))

    prefill.write(decode.address, [5] * 8, list(range(8, 16)))

    assert decode.digests() == wanted.digests()


@pytest.mark.parametrize("tag", [0, 7])
def test_a_write_without_blocks_changes_nothing(wire: Wire, tag: int):
    prefill, decode = wire.pair()
    before = decode.digests()

    prefill.write(decode.address, [], [], tag=tag)
    if tag:
        decode.received(tag, 10)

    assert decode.digests() == before


@pytest.mark.parametrize(
    ("prefill_shape", "decode_shape"),
    [
        (Shape(blocks=8), Shape(blocks=300)),
        (Shape(blocks=300), Shape(blocks=8)),
        (Shape(), Shape(padding=128)),
        (Shape(padding=128), Shape()),
        (Shape(padding=64), Shape(padding=4096 - 256)),
    ],
    ids=["into-more", "from-more", "into-padded", "from-padded", "both-padded"],
)
def test_sides_may_differ_in_blocks_and_stride(
    wire: Wire, prefill_shape: Shape, decode_shape: Shape
):
    prefill, decode = wire.pair(prefill_shape.but(dtype=""), decode_shape.but(dtype=""))
    src, dst = random_map(prefill_shape, 6, seed=4, dst_shape=decode_shape)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, range(3))

    prefill.write(decode.address, src, dst)

    assert decode.digests() == wanted.digests()


@pytest.mark.parametrize("scales", [0, 8], ids=["plain", "scales"])
def test_two_prefill_ranks_fill_one_decode_block(wire: Wire, scales: int):
    whole = Shape(block_bytes=256, scale_bytes=scales)
    half = whole.but(block_bytes=128, scale_bytes=scales // 2, tp_size=2)
    decode = wire.decode(whole)
    src, dst = random_map(whole, 11, seed=5)
    wanted = image_of(decode)

    for rank in range(2):
        prefill = wire.prefill(half.but(tp_rank=rank))
        assert prefill.connect(decode.address)
        wanted.take(prefill.cache, src, dst, range(3))
        prefill.write(decode.address, src, dst)

        assert decode.digests() == wanted.digests()


def test_one_prefill_rank_feeds_two_decode_ranks(wire: Wire):
    whole = Shape(block_bytes=256)
    prefill = wire.prefill(whole)
    src, dst = random_map(whole, 11, seed=6)

    for rank in range(2):
        decode = wire.decode(whole.but(block_bytes=128, tp_size=2, tp_rank=rank))
        assert prefill.connect(decode.address)
        wanted = image_of(decode)
        wanted.take(prefill.cache, src, dst, range(3))
        prefill.write(decode.address, src, dst)

        assert decode.digests() == wanted.digests()


def test_a_rank_that_straddles_two_decode_ranks(wire: Wire):
    heads = 6  # of 32 bytes: prefill ranks hold 2 each, decode ranks 3 each
    prefill = wire.prefill(Shape(block_bytes=heads // 3 * 32, tp_size=3, tp_rank=1))
    src, dst = random_map(prefill.shape, 9, seed=7)

    for rank in range(2):
        decode = wire.decode(Shape(block_bytes=heads // 2 * 32, tp_size=2, tp_rank=rank))
        assert prefill.connect(decode.address)
        wanted = image_of(decode)
        wanted.take(prefill.cache, src, dst, range(3))
        prefill.write(decode.address, src, dst)

        assert decode.digests() == wanted.digests()


def test_a_replicated_latent_cache_is_written_whole_by_any_rank(wire: Wire):
    latent = Shape(key_only=True, block_bytes=576)
    prefill = wire.prefill(latent.but(tp_size=2, tp_rank=1))
    decode = wire.decode(latent.but(tp_size=4, tp_rank=3))
    assert prefill.connect(decode.address)
    src, dst = random_map(latent, 10, seed=8)
    wanted = image_of(decode)
    wanted.take_whole(prefill.cache, src, dst, range(3))

    prefill.write(decode.address, src, dst)

    assert decode.digests() == wanted.digests()


@pytest.mark.parametrize(
    ("blocks", "block_bytes"), [(64, 256 << 10), (8192, 1024)], ids=["large", "many"]
)
def test_a_big_transfer(wire: Wire, blocks: int, block_bytes: int):
    # 64 MiB and 32 MiB over two layers of K and V; a slow machine gets fewer blocks.
    shape = Shape(layers=2, blocks=max(16, round(blocks / SCALE)), block_bytes=block_bytes)
    prefill, decode = wire.pair(shape)
    src, dst = random_map(shape, shape.blocks, seed=9)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, range(2))

    prefill.write(decode.address, src, dst, timeout_s=60)

    assert decode.digests() == wanted.digests()
