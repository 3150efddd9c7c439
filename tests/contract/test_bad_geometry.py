"""A cache that makes no sense, or does not match the peer's, is refused with both values named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdma_kv import Config, LayoutMismatch, RDMACommunicator
from support.cache import Shape
from support.wire import Wire

BASE = Shape()


@pytest.mark.parametrize(
    ("prefill_shape", "decode_shape", "words"),
    [
        (BASE.but(layers=4), BASE, ["layers", "4", "3"]),
        (BASE.but(block_bytes=128), BASE, ["block bytes", "128", "256"]),
        (BASE.but(key_only=True), BASE, ["key + value", "key"]),
        (BASE, BASE.but(key_only=True), ["key + value", "key"]),
        (BASE.but(scale_bytes=8), BASE, ["key scale", "key + value"]),
        (BASE.but(scale_bytes=8), BASE.but(scale_bytes=4), ["scale", "8", "4"]),
        (BASE.but(dtype="float16"), BASE.but(dtype="float32"), ["float16", "float32"]),
        (BASE.but(tp_size=2), BASE, ["256 * 2", "256 * 1"]),
        (BASE.but(tp_size=3), BASE.but(tp_size=2), ["256 * 3", "256 * 2"]),
        (BASE.but(tp_size=2, tp_rank=1), BASE.but(tp_size=2), ["rank 1 of 2", "rank 0 of 2"]),
    ],
)
def test_peers_that_differ_are_refused_with_both_values(
    wire: Wire, prefill_shape: Shape, decode_shape: Shape, words: list[str]
):
    prefill, decode = wire.prefill(prefill_shape), wire.decode(decode_shape)

    with pytest.raises(LayoutMismatch) as refusal:
        prefill.connect(decode.address)

    for word in words:
        assert word in str(refusal.value)
    assert not prefill.is_connected(decode.address)


def test_a_mismatch_with_one_leaves_the_others_connected(wire: Wire):
    prefill, decode = wire.pair()
    other = wire.prefill(BASE.but(layers=4))

    with pytest.raises(LayoutMismatch):
        other.connect(decode.address)

    prefill.write(decode.address, [1], [2], tag=1)
    decode.received(1, 10)


def make(**change: Any) -> RDMACommunicator:
    """A good communicator, but for `change`."""
    memory = np.zeros((2, 2, 4, 64), np.uint8)
    arguments: dict[str, Any] = {
        "role": "prefill",
        "gpu_idx": -1,
        "port": "0",
        "local_key_cache": list(memory[0]),
        "local_value_cache": list(memory[1]),
        "block_number": 4,
        "block_bytes": 64,
        "config": Config.from_env({"KVCACHE_TRANSPORT": "tcp"}),
    }
    return RDMACommunicator(**{**arguments, **change})


def array(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "encode"}, ["role", "encode", "prefill", "decode"]),
        ({"role": None}, ["role"]),
        ({"port": "http"}, ["port", "http"]),
        ({"port": "70000"}, ["port", "70000", "65535"]),
        ({"port": -1}, ["port", "-1"]),
        ({"block_bytes": 0}, ["block_bytes", "0"]),
        ({"block_bytes": -64}, ["block_bytes", "-64"]),
        ({"block_bytes": 65}, ["block_bytes", "65", "64"]),
        ({"block_number": 0}, ["block_number", "0"]),
        ({"block_number": 5}, ["block_number", "5", "4"]),
        ({"local_key_cache": []}, ["local_key_cache"]),
        ({"local_key_cache": [0, 4096]}, ["0"]),
        ({"local_key_cache": [-4096, 4096]}, ["-4096"]),
        ({"local_key_cache": [2**64, 4096]}, ["18446744073709551616"]),
        ({"local_key_cache": [1.5, 4096]}, ["float"]),
        ({"local_value_cache": [array(4, 64)]}, ["2", "1"]),
        ({"local_key_cache": [array(4, 32), array(4, 32)]}, ["32", "64"]),
        ({"local_key_cache": [array(4, 128)[:, ::2], array(4, 64)]}, ["contiguous"]),
        ({"local_key_cache": [array(4, 64), array(4, 16, dtype="float32").T]}, ["contiguous|4"]),
        ({"block_stride_bytes": 32}, ["stride", "32", "64"]),
        ({"tp_size": 2, "tp_rank": 2}, ["tp_rank", "2"]),
        ({"tp_size": -1}, ["tp_size", "-1"]),
        ({"key_scales": [array(4, 8)] * 2}, ["scale"]),
        ({"scale_block_bytes": 8}, ["scale"]),
    ],
    ids=lambda value: str(next(iter(value.items())))[:40] if isinstance(value, dict) else "",
)
def test_arguments_that_make_no_sense_are_refused_by_name(change: dict[str, Any], words: list[str]):
    with pytest.raises((ValueError, TypeError)) as refusal:
        make(**change).close()

    for word in words:
        assert any(part in str(refusal.value) for part in word.split("|"))


def test_the_good_one_that_these_are_changes_of():
    with make() as communicator:
        assert communicator.stats().role == "prefill"
