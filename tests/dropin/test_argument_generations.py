"""How the three generations of constructor arguments are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdma_comm._generations import parse

SEVEN = ("prefill", 0, "0", [4096], [8192], 10, 1024)
SEVEN_NAMES = (
    "role",
    "gpu_idx",
    "port",
    "key_cache",
    "value_cache",
    "block_number",
    "block_bytes",
)


def test_seven_arguments_are_the_first_generation() -> None:
    given = parse(SEVEN, {})

    assert tuple(getattr(given, name) for name in SEVEN_NAMES) == SEVEN
    assert not given.has_scales
    assert (given.prefill_tp_size, given.prefill_tp_idx) == (1, 0)


@pytest.mark.parametrize("number", [int, np.int32, np.int64])
def test_a_number_in_eighth_place_is_the_tensor_parallel_size(number: Any) -> None:
    given = parse((*SEVEN, number(4), number(3)), {})

    assert (given.prefill_tp_size, given.prefill_tp_idx) == (4, 3)
    assert not given.has_scales


def test_the_tensor_parallel_size_may_come_alone() -> None:
    assert parse((*SEVEN, 4), {}).prefill_tp_size == 4


@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_a_list_in_eighth_place_holds_key_scales(make: Any) -> None:
    given = parse((*SEVEN, make([1 << 20]), make([2 << 20]), 64, 4, 3), {})

    assert list(given.key_scales) == [1 << 20]
    assert list(given.value_scales) == [2 << 20]
    assert given.scale_block_bytes == 64
    assert given.has_scales
    assert (given.prefill_tp_size, given.prefill_tp_idx) == (4, 3)


def test_the_third_generation_may_leave_out_its_end() -> None:
    given = parse((*SEVEN, [1 << 20], [2 << 20], 64), {})

    assert given.has_scales
    assert (given.prefill_tp_size, given.prefill_tp_idx) == (1, 0)


@pytest.mark.parametrize("nothing", [[], (), None])
def test_empty_lists_in_eighth_place_are_no_scales(nothing: Any) -> None:
    given = parse((*SEVEN, nothing, nothing, 0, 2, 1), {})

    assert not given.has_scales
    assert (given.prefill_tp_size, given.prefill_tp_idx) == (2, 1)


@pytest.mark.parametrize(
    "names",
    [
        ("role", "gpu_idx", "port", "local_key_cache", "local_value_cache"),
        ("role", "gpu_idx", "port", "key_ptrs", "value_ptrs"),
        ("splitwise_role", "gpu_idx", "port", "key_cache_ptrs", "value_cache_ptrs"),
    ],
)
def test_every_name_that_an_argument_had_is_taken(names: tuple[str, ...]) -> None:
    keywords = dict(zip((*names, "block_number", "block_bytes"), SEVEN, strict=True))

    given = parse((), keywords)

    assert tuple(getattr(given, name) for name in SEVEN_NAMES) == SEVEN


@pytest.mark.parametrize(
    "names", [("key_scales", "value_scales"), ("key_scale_ptrs", "value_scale_ptrs")]
)
def test_scales_and_ranks_go_by_name_too(names: tuple[str, str]) -> None:
    keywords: dict[str, Any] = dict(zip(names, ([1 << 20], [2 << 20]), strict=True))

    given = parse(SEVEN, keywords | {"scale_block_bytes": 64, "prefill_tp_size": 2})

    assert given.key_scales == [1 << 20]
    assert given.value_scales == [2 << 20]
    assert given.prefill_tp_size == 2


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (SEVEN[:6], {}, "missing 'block_bytes'"),
        ((), {}, "missing 'role', 'gpu_idx'"),
        ((*SEVEN, 2, 1, 0), {}, "at most 9 positional arguments, not 10"),
        ((*SEVEN, [], [], 0, 2, 1, 0), {}, "at most 12 positional arguments, not 13"),
        (SEVEN, {"block_size": 4}, "unexpected keyword argument 'block_size'"),
        (SEVEN, {"splitwise_role": "decode"}, "'role' twice, once as 'splitwise_role'"),
        ((*SEVEN, 2), {"prefill_tp_size": 2}, "'prefill_tp_size' twice"),
        ((*SEVEN, 2.0), {}, "eighth argument of RDMACommunicator is 2.0"),
        ((*SEVEN, 2, "1"), {}, "prefill_tp_idx is '1'; give a whole number"),
    ],
)
def test_arguments_of_no_generation_are_a_type_error(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        parse(args, kwargs)


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ((0, 0), "prefill_tp_size is 0; must be 1 or more"),
        ((2, 2), "prefill_tp_idx=2 is not a rank of prefill_tp_size=2; allowed: 0 to 1"),
        ((2, -1), "prefill_tp_idx is -1"),
    ],
)
def test_a_rank_that_does_not_exist_is_refused(rank: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse((*SEVEN, *rank), {})
