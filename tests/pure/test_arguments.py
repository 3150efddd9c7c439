"""Roles, ports and block ids as users spell them."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest

from rdma_kv._arguments import as_ids, check_port, check_role


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_role_is_a_role(role: str) -> None:
    assert check_role(role) == role


@pytest.mark.parametrize("role", ["Prefill", "both", "", None, 1])
def test_an_unknown_role_is_named(role: object) -> None:
    with pytest.raises(ValueError, match="allowed: 'prefill'") as caught:
        check_role(role)

    assert repr(role) in str(caught.value)


@pytest.mark.parametrize(
    ("port", "number"), [("0", 0), (0, 0), ("12345", 12345), (65535, 65535), (np.int32(80), 80)]
)
def test_a_port_is_a_number_or_its_digits(port: Any, number: int) -> None:
    assert check_port(port) == number


@pytest.mark.parametrize(
    "port", ["65536", -1, "-1", "", "http", "1_0", " 80", "+80", "٣", 80.0, True, None]
)
def test_anything_else_is_no_port(port: object) -> None:
    with pytest.raises(ValueError, match="allowed: 0 to 65535") as caught:
        check_port(port)

    assert repr(port) in str(caught.value)


@pytest.mark.parametrize("ids", [[3, 1], (3, 1), []])
def test_lists_and_tuples_pass_as_they_are(ids: Any) -> None:
    assert as_ids(ids) is ids


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_numpy_integers_pass_without_a_copy(dtype: Any) -> None:
    ids = np.array([3, 1], dtype)

    taken = as_ids(ids)

    assert isinstance(taken, np.ndarray)
    assert np.shares_memory(taken, ids)


def test_every_other_id_of_an_array_is_taken() -> None:
    assert list(as_ids(np.arange(6)[::2])) == [0, 2, 4]


def test_a_range_is_taken() -> None:
    assert list(as_ids(range(9, 3, -3))) == [9, 6]


def test_an_array_of_the_standard_library_is_taken() -> None:
    assert list(as_ids(array("q", [3, 1]))) == [3, 1]


def test_an_empty_array_will_do_whatever_its_type() -> None:
    assert len(as_ids(np.array([]))) == 0


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_torch_integers_are_taken(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    assert list(as_ids(torch.tensor([3, 1], dtype=getattr(torch, dtype)))) == [3, 1]


@pytest.mark.parametrize("dtype", ["float64", "bool", "uint32", "int16", "object"])
def test_ids_of_another_dtype_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"local ids: dtype {dtype} .* int32 or int64"):
        as_ids(np.ones(2, dtype), "local ids")


def test_torch_floats_are_refused_by_name() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    with pytest.raises(TypeError, match="dtype float32"):
        as_ids(torch.ones(2))


@pytest.mark.parametrize("shape", [(), (2, 2), (1, 0)])
def test_ids_with_another_number_of_dimensions_are_refused_with_their_shape(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(ValueError, match="give one dimension") as caught:
        as_ids(np.zeros(shape, np.int64))

    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("ids", [3, "3", None, {3, 1}])
def test_what_is_no_sequence_is_refused_with_its_type(ids: Any) -> None:
    with pytest.raises(TypeError, match=f"a {type(ids).__name__} holds no block ids"):
        as_ids(ids)
