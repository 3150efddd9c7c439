"""Where blocks lie: Geometry and Layout."""

from __future__ import annotations

import pytest

from rdma_kv._core import Geometry, Layout

GIB = 1 << 30
KEY, VALUE, KEY_SCALE, VALUE_SCALE = range(4)


def layout(geometry: Geometry, *bases: int) -> Layout:
    return Layout(geometry, bases, [-1] * len(bases))


def test_a_geometry_tells_what_it_was_given():
    geometry = Geometry(
        layers=2,
        block_count=7,
        tensors=[(KEY, 64, 80), (VALUE, 64, 64)],
        dtype="bfloat16",
        tp_size=4,
        tp_rank=3,
    )

    told = (geometry.layers, geometry.block_count, geometry.tensors, geometry.dtype)

    assert told == (2, 7, [(KEY, 64, 80), (VALUE, 64, 64)], "bfloat16")
    assert (geometry.tp_size, geometry.tp_rank) == (4, 3)


@pytest.mark.parametrize(
    ("blocks", "block_bytes", "stride", "size"),
    [
        (1, 16, 16, 16),
        (1, 16, 64, 16),  # padding follows a block, never the last one
        (10, 16, 16, 160),
        (10, 16, 64, 9 * 64 + 16),
        (131_072, 16_384, 16_384, 2 * GIB),
        (131_072, 65_536, 65_536, 8 * GIB),  # more than 32 bits
        (1 << 31, 4096, 4096, 1 << 43),
    ],
)
def test_a_region_reaches_to_the_end_of_its_last_block(blocks, block_bytes, stride, size):
    geometry = Geometry(1, blocks, [(KEY, block_bytes, stride)])

    assert layout(geometry, 1 << 46).regions == [(1 << 46, size, -1)]


def test_regions_are_layer_major_and_keep_their_device():
    tensors = [(KEY, 32, 32), (VALUE, 32, 32), (KEY_SCALE, 2, 4), (VALUE_SCALE, 2, 2)]
    geometry = Geometry(2, 10, tensors)
    bases = [1000 * (i + 1) for i in range(8)]
    devices = [0, 0, -1, -1, 1, 1, -1, -1]

    regions = Layout(geometry, bases, devices).regions

    assert regions == [
        (base, size, device)
        for base, size, device in zip(bases, [320, 320, 38, 20] * 2, devices, strict=True)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"layers": 4097}, "layers is 4097"),
        ({"block_count": 0}, "block_number is 0"),
        ({"block_count": (1 << 31) + 1}, "block_number is 2147483649"),
        ({"tensors": []}, "0 tensors"),
        ({"tensors": [(KEY, 0, 0)]}, "block bytes of key is 0"),
        ({"tensors": [(KEY, 16, 16), (VALUE, 0, 16)]}, "block bytes of value is 0"),
        ({"tensors": [(KEY, 16, 15)]}, "block stride of key is 15 bytes, smaller than its 16"),
        ({"tensors": [(KEY, (1 << 32) + 1, 1 << 33)]}, "block bytes of key is 4294967297"),
        ({"tensors": [(VALUE, 16, 16)]}, "first tensor of a layer must be the key"),
        ({"tensors": [(KEY, 16, 16), (KEY, 16, 16)]}, "in the order key, value"),
        ({"tensors": [(KEY, 16, 16), (KEY_SCALE, 1, 1), (VALUE, 16, 16)]}, "in the order"),
        ({"tp_size": 4097}, "tp_size is 4097"),
        ({"tp_size": 2, "tp_rank": 2}, "tp_rank is 2; must be 0..1 with tp_size 2"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused_by_name(change, message):
    shape = {"layers": 1, "block_count": 4, "tensors": [(KEY, 16, 16)], **change}

    with pytest.raises(ValueError, match=message):
        layout(Geometry(**shape), *[4096] * (shape["layers"] * len(shape["tensors"])))


@pytest.mark.parametrize("kind", [-1, 4, 256])
def test_an_unknown_kind_of_tensor_is_refused(kind):
    with pytest.raises((ValueError, TypeError)):
        layout(Geometry(1, 4, [(KEY, 16, 16), (kind, 16, 16)]), 4096, 8192)


@pytest.mark.parametrize(
    ("bases", "devices", "message"),
    [
        ([4096], [-1], "there must be 2 of each"),
        ([4096, 8192], [-1], "1 devices"),
        ([4096, 8192, 9000], [-1] * 3, "3 base addresses"),
        ([4096, 0], [-1, -1], "pointer of value of layer 0 is 0"),
        ([4096, 2**64 - 32], [-1, -1], "run past the end of the address space"),
    ],
)
def test_addresses_that_cannot_be_are_refused_by_name(bases, devices, message):
    geometry = Geometry(1, 4, [(KEY, 16, 16), (VALUE, 16, 16)])

    with pytest.raises(ValueError, match=message):
        Layout(geometry, bases, devices)
