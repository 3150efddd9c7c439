"""However a cache lies in GPU memory, the bytes named arrive and no others change."""

from __future__ import annotations

import pytest

from rdma_kv import TransportUnavailable
from support import cuda
from support.cache import Shape
from support.device_cache import ARRANGEMENTS
from support.wire import Wire, image_of, random_map

# Of the second kind, the cache of each side lies across several chunks of virtual memory.
SHAPES = {
    "scales": Shape(scale_bytes=8),
    "across-chunks": Shape(layers=2, blocks=40, block_bytes=32 << 10, scale_bytes=12),
    "1000-bytes": Shape(layers=2, blocks=21, block_bytes=1000, dtype="float16"),
    "1001-bytes": Shape(layers=3, blocks=21, block_bytes=1001),
    "1001-and-odd-padding": Shape(layers=2, blocks=21, block_bytes=1001, padding=6, dtype=""),
    "one-byte": Shape(layers=2, blocks=301, block_bytes=1),
    "pointers": Shape(dtype=""),
}
PAIRS = [(one, one) for one in ARRANGEMENTS if one != "device-private"] + [
    ("device", "device-virtual"),
    ("device-one", "device"),
    ("device-private", "device-virtual"),  # prefill's own memory need not be shared
]


def assert_a_write_arrives(wire: Wire, shape: Shape, seed: int = 1) -> None:
    prefill, decode = wire.pair(shape)
    src, dst = random_map(shape, shape.blocks * 2 // 3, seed)
    wanted = image_of(decode)
    wanted.take(prefill.cache, src, dst, range(shape.layers))

    prefill.write(decode.address, src, dst, tag=1)
    decode.received(1, 10)

    assert decode.digests() == wanted.digests()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("prefill", "decode"), PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_every_arrangement(gpus: Wire, shape: Shape, prefill: str, decode: str):
    gpus.arrange("prefill", prefill)
    gpus.arrange("decode", decode)

    assert_a_write_arrives(gpus, shape)


@pytest.mark.parametrize("arrangement", ["device", "device-one"])
def test_many_layers(gpus: Wire, arrangement: str):
    """In an allocation for each of 320 tensors, and in one for all."""
    gpus.arrange("prefill", arrangement)
    gpus.arrange("decode", arrangement)

    assert_a_write_arrives(gpus, Shape(layers=80, blocks=12, block_bytes=528, scale_bytes=4))


def test_long_runs_go_in_bulk(gpus: Wire):
    """One run of all tensors' bytes, which copy engines take; and blocks in no order, which they do
    not."""
    shape = Shape(layers=1, blocks=20, block_bytes=1 << 20, key_only=True)
    prefill, decode = gpus.pair(shape)
    wanted = image_of(decode)

    for src, dst in (
        (list(range(2, 18)), list(range(4, 20))),
        (list(range(20)), list(range(20))[::-1]),
    ):
        prefill.write(decode.address, src, dst)
        wanted.take(prefill.cache, src, dst, [0])
        assert decode.digests() == wanted.digests()


def test_decode_memory_that_cannot_be_shared_is_refused_with_the_reason(gpus: Wire):
    if gpus.transport != "cuda_ipc":
        pytest.skip("staged writes share no memory")
    gpus.arrange("decode", "device-private")

    with pytest.raises(TransportUnavailable, match=r"cuda_ipc: the memory .* cannot be shared"):
        gpus.decode(Shape())


def test_decode_memory_that_cannot_be_shared_goes_another_way(gpus: Wire):
    gpus.arrange("decode", "device-private")
    auto = {"KVCACHE_TRANSPORT": "auto"}
    prefill, decode = gpus.prefill(Shape(), **auto), gpus.decode(Shape(), **auto)
    wanted = image_of(decode)
    wanted.take(prefill.cache, [1, 2], [3, 4], range(3))

    assert prefill.connect(decode.address)
    prefill.write(decode.address, [1, 2], [3, 4])

    assert prefill.transport_to(decode.address) == "cma"
    assert decode.digests() == wanted.digests()


def test_a_write_of_all_layers_is_one_kernel(gpus: Wire, fake_driver: None):
    if gpus.transport != "cuda_ipc":
        pytest.skip("staged writes are cut into pieces")
    shape = Shape(layers=8, scale_bytes=8)
    prefill, decode = gpus.pair(shape)
    src, dst = random_map(shape, 20, seed=1)
    prefill.write(decode.address, src, dst)
    before = cuda.driver().rdma_kv_fake_calls(b"cuLaunchKernel")

    prefill.write(decode.address, src, dst)

    assert cuda.driver().rdma_kv_fake_calls(b"cuLaunchKernel") == before + 1
