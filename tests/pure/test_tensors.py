"""From tensors and pointers to a layout, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdma_kv import _cuda_pointer, _tensors
from rdma_kv._tensors import Cache, describe_cache

HOST = -1
BLOCKS, TOKENS, WIDTH = 8, 4, 16
BLOCK_BYTES = TOKENS * WIDTH * 2


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that bare pointers, also made-up ones, are host memory on every machine."""
    monkeypatch.setattr(_cuda_pointer, "_driver", lambda: None)


def arrays(layers: int = 2, dtype: Any = np.float16) -> list[np.ndarray[Any, Any]]:
    return [np.zeros((BLOCKS, TOKENS, WIDTH), dtype) for _ in range(layers)]


def describe(**changes: Any) -> Cache:
    """Two layers of good K and V, but for the changes."""
    good: dict[str, Any] = {
        "role": "decode",
        "gpu_idx": -1,
        "keys": arrays(),
        "values": arrays(),
        "block_number": BLOCKS,
        "block_bytes": BLOCK_BYTES,
    }
    return describe_cache(**(good | changes))


class FakeTensor:
    """What torch and its like show of a tensor; strides in elements."""

    def __init__(
        self,
        address: int,
        shape: Sequence[int] = (BLOCKS, TOKENS, WIDTH),
        strides: Sequence[int] = (TOKENS * WIDTH, WIDTH, 1),
        dtype: str = "torch.bfloat16",
        device: object = None,
    ) -> None:
        self.address = address
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self.dtype = dtype
        self.device = device or SimpleNamespace(type="cpu", index=None)

    def data_ptr(self) -> int:
        return self.address

    def element_size(self) -> int:
        return 2

    def stride(self) -> tuple[int, ...]:
        return self.strides


# ---- what is taken -----------------------------------------------------------------------------


def test_addresses_come_layer_by_layer() -> None:
    keys, values = arrays(), arrays()

    cache = describe(keys=keys, values=values)

    assert cache.bases == tuple(a.ctypes.data for a in (keys[0], values[0], keys[1], values[1]))
    assert cache.tensors == ((0, BLOCK_BYTES, BLOCK_BYTES), (1, BLOCK_BYTES, BLOCK_BYTES))
    assert cache.devices == (HOST,) * 4
    assert cache.dtype == "float16"


def test_pointers_are_ints_of_any_kind() -> None:
    cache = describe(keys=[4096, np.int64(8192)], values=np.array([12288, 16384], np.uint64))

    assert cache.bases == (4096, 12288, 8192, 16384)
    assert cache.dtype == ""


def test_a_cache_without_values_is_key_only() -> None:
    cache = describe(values=[])

    assert cache.tensors == ((0, BLOCK_BYTES, BLOCK_BYTES),)


def test_one_tensor_with_a_dimension_for_layers_is_a_list_of_them() -> None:
    stacked = np.zeros((3, BLOCKS, TOKENS, WIDTH), np.float16)

    cache = describe(keys=stacked, values=[])

    assert cache.layers == 3
    assert cache.bases[2] - cache.bases[0] == 2 * BLOCKS * BLOCK_BYTES


def test_scales_follow_keys_and_values_of_their_layer() -> None:
    key_scales, value_scales = [1 << 20, 2 << 20], [3 << 20, 4 << 20]

    cache = describe(key_scales=key_scales, value_scales=value_scales, scale_block_bytes=64)

    assert [kind for kind, _, _ in cache.tensors] == [0, 1, 2, 3]
    assert cache.tensors[3] == (3, 64, 64)
    assert cache.bases[2:4] == (1 << 20, 3 << 20)
    assert cache.bases[6:8] == (2 << 20, 4 << 20)


def test_the_stride_between_blocks_is_the_tensors_own() -> None:
    packed = np.zeros((BLOCKS, 2, TOKENS, WIDTH), np.float16)  # K and V side by side in a block

    cache = describe(keys=[packed[:, 0]], values=[packed[:, 1]])

    assert cache.tensors == ((0, BLOCK_BYTES, 2 * BLOCK_BYTES), (1, BLOCK_BYTES, 2 * BLOCK_BYTES))
    assert cache.bases[1] - cache.bases[0] == BLOCK_BYTES


def test_pointers_take_the_stride_that_is_given() -> None:
    cache = describe(keys=[4096], values=[8192], block_stride_bytes=4 * BLOCK_BYTES)

    assert {stride for _, _, stride in cache.tensors} == {4 * BLOCK_BYTES}


def test_a_single_block_has_no_stride_to_disagree_on() -> None:
    odd = FakeTensor(4096, shape=(1, TOKENS, WIDTH), strides=(1, WIDTH, 1))

    cache = describe(keys=[odd], values=[], block_number=1)

    assert cache.tensors == ((0, BLOCK_BYTES, BLOCK_BYTES),)


def test_the_tensors_stay_alive_with_the_cache() -> None:
    keys, values = arrays(), arrays()

    cache = describe(keys=keys, values=values)

    assert [id(owner) for owner in cache.owners] == [id(a) for a in (*keys, *values)]


def test_a_tensor_of_another_library_needs_data_ptr_only() -> None:
    cache = describe(keys=[FakeTensor(4096)], values=[FakeTensor(8192)])

    assert cache.bases == (4096, 8192)
    assert cache.dtype == "bfloat16"
    assert cache.devices == (HOST, HOST)


def test_a_cuda_tensor_says_its_device() -> None:
    on_gpu = FakeTensor(4096, device=SimpleNamespace(type="cuda", index=3))

    assert describe(keys=[on_gpu], values=[], gpu_idx=0).devices == (3,)


def test_a_cuda_tensor_without_a_number_is_on_the_communicators_gpu() -> None:
    on_gpu = FakeTensor(4096, device=SimpleNamespace(type="cuda", index=None))

    assert describe(keys=[on_gpu], values=[], gpu_idx=2).devices == (2,)


def test_where_a_pointer_points_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensors, "device_of", {4096: 5, 8192: HOST}.__getitem__)

    assert describe(keys=[4096], values=[8192], gpu_idx=0).devices == (5, HOST)


def test_without_a_driver_a_pointer_is_host_memory_whatever_gpu_idx_says() -> None:
    assert describe(keys=[4096], values=[], gpu_idx=7).devices == (HOST,)


def test_the_cuda_array_interface_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensors, "device_of", lambda address: 1)
    array = SimpleNamespace(
        __cuda_array_interface__={
            "shape": (BLOCKS, TOKENS, WIDTH),
            "typestr": "<f2",
            "data": (4096, False),
            "strides": None,
            "version": 3,
        }
    )

    cache = describe(keys=[array], values=[])

    assert cache.bases == (4096,)
    assert cache.devices == (1,)
    assert cache.tensors == ((0, BLOCK_BYTES, BLOCK_BYTES),)


def test_torch_tensors_are_taken_where_torch_is_installed() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensor = torch.zeros(BLOCKS, TOKENS, WIDTH, dtype=torch.bfloat16)

    cache = describe(keys=[tensor], values=[])

    assert cache.bases == (tensor.data_ptr(),)
    assert cache.dtype == "bfloat16"


def test_prefill_may_read_from_a_readonly_array() -> None:
    keys = arrays()
    keys[1].flags.writeable = False

    assert describe(role="prefill", keys=keys).layers == 2


def test_the_core_gets_the_same_numbers() -> None:
    cache = describe(tp_size=2, tp_rank=1)

    layout = cache.layout()

    assert layout.geometry.tensors == list(cache.tensors)
    assert (layout.geometry.tp_size, layout.geometry.tp_rank) == (2, 1)
    assert [base for base, _, _ in layout.regions] == list(cache.bases)
    assert {size for _, size, _ in layout.regions} == {BLOCKS * BLOCK_BYTES}


# ---- what is refused ---------------------------------------------------------------------------


def with_one(bad: object) -> list[object]:
    return [arrays(1)[0], bad]


def read_only() -> object:
    array = arrays(1)[0]
    array.flags.writeable = False
    return array


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no layers", {"keys": []}, "local_key_cache is empty"),
    ("fewer values", {"values": arrays(1)}, "has 2 layers but local_value_cache 1"),
    (
        "fewer key scales",
        {"key_scales": [4096], "value_scales": [4096, 8192], "scale_block_bytes": 8},
        "2 layers but key_scales 1",
    ),
    (
        "no value scales",
        {"key_scales": [4096, 8192], "scale_block_bytes": 8},
        "2 layers but value_scales 0",
    ),
    (
        "scales of values that are not there",
        {
            "values": [],
            "key_scales": [4096, 8192],
            "value_scales": [4096, 8192],
            "scale_block_bytes": 8,
        },
        "0 layers but value_scales 2",
    ),
    (
        "scales without their size",
        {"key_scales": [4096, 8192], "value_scales": [4096, 8192]},
        "scale_block_bytes=0 but scales were given",
    ),
    ("a size without scales", {"scale_block_bytes": 8}, "but key_scales is empty"),
    ("a null pointer", {"keys": [4096, 0]}, r"local_key_cache\[1\] is at address 0"),
    ("a negative pointer", {"values": [-1, 4096]}, r"local_value_cache\[0\] is at address -1"),
    ("a pointer of 65 bits", {"keys": [4096, 1 << 64]}, "no pointer has more than 64 bits"),
    ("no blocks", {"block_number": 0}, "block_number is 0; must be 1 or more"),
    ("blocks of no bytes", {"block_bytes": 0}, "block_bytes is 0; must be 1 or more"),
    ("a negative size", {"block_bytes": -128}, "block_bytes is -128"),
    ("no such GPU", {"gpu_idx": -2}, "gpu_idx is -2; must be -1 or more"),
    (
        "blocks that overlap",
        {"block_stride_bytes": 64},
        "block_stride_bytes=64 is below block_bytes=128",
    ),
    ("a rank too many", {"tp_size": 2, "tp_rank": 2}, "tp_rank=2 is not a rank of tp_size=2"),
    (
        "another number of blocks",
        {"keys": with_one(np.zeros((BLOCKS + 1, TOKENS, WIDTH), np.float16))},
        r"local_key_cache\[1\] has shape \(9, 4, 16\): its first dimension is 9, block_number is 8",
    ),
    (
        "no dimension at all",
        {"keys": with_one(np.zeros((), np.float16))},
        r"shape \(\): its first dimension is missing",
    ),
    (
        "another block size",
        {"block_bytes": 256},
        r"local_key_cache\[0\] has 128 bytes per block .* but block_bytes is 256",
    ),
    (
        "another scale size",
        {
            "values": [],
            "key_scales": arrays(),
            "scale_block_bytes": 64,
        },
        r"key_scales\[0\] has 128 bytes per block .* but scale_block_bytes is 64",
    ),
    (
        "a transposed block",
        {"keys": with_one(np.zeros((BLOCKS, WIDTH, TOKENS), np.float16).transpose(0, 2, 1))},
        r"\[1\] is not contiguous within a block: .* has strides of \(128, 2, 8\) bytes",
    ),
    (
        "every other token",
        {"keys": with_one(np.zeros((BLOCKS, 2 * TOKENS, WIDTH), np.float16)[:, ::2])},
        "not contiguous within a block",
    ),
    (
        "blocks backwards",
        {"keys": [a[::-1] for a in arrays()]},
        "a block stride of -128 bytes, below the 128",
    ),
    (
        "one block many times",
        {"keys": [np.lib.stride_tricks.as_strided(a, strides=(0, 32, 2)) for a in arrays()]},
        "a block stride of 0 bytes",
    ),
    (
        "layers with different strides",
        {"keys": with_one(np.zeros((BLOCKS, 2, TOKENS, WIDTH), np.float16)[:, 0])},
        r"\[1\] has a block stride of 256 bytes, local_key_cache\[0\] one of 128",
    ),
    (
        "a stride that the tensor does not have",
        {"block_stride_bytes": 256},
        "block stride of 128 bytes, but block_stride_bytes is 256",
    ),
    ("a read-only array on decode", {"keys": with_one(read_only())}, r"\[1\] is read-only"),
    (
        "mixed dtypes",
        {"values": arrays(dtype=np.int16)},
        r"local_value_cache\[0\] is int16, local_key_cache\[0\] is float16",
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_cache_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": [4096, "8192"]}, r"local_key_cache\[1\] is a str; give a pointer"),
        ({"keys": [4096, True]}, r"local_key_cache\[1\] is a bool"),
        ({"keys": [4096, np.float32(1)]}, r"local_key_cache\[1\] is a float32"),
        ({"keys": 4096}, "local_key_cache is 4096; give a list"),
        ({"block_bytes": 128.0}, "block_bytes is 128.0; give a whole number"),
        ({"block_number": "8"}, "block_number is '8'; give a whole number"),
    ],
)
def test_what_is_no_cache_at_all_is_a_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        describe(**changes)


def test_the_driver_is_asked_only_when_everything_else_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(_tensors, "device_of", asked.append)

    with pytest.raises(ValueError, match="tp_rank"):
        describe(keys=[4096], values=[], tp_rank=1)
    with pytest.raises(ValueError, match="address 0"):
        describe(keys=[4096, 0], values=[])

    assert asked == []


def test_a_tensor_without_plain_memory_is_refused_by_name() -> None:
    def data_ptr() -> int:
        raise RuntimeError("no storage")

    sparse = SimpleNamespace(data_ptr=data_ptr)
    with pytest.raises(TypeError, match=r"local_key_cache\[0\].*no storage.* give a dense"):
        describe(keys=[sparse], values=[])
