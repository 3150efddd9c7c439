"""Engines written against KVTransferManager run as they are: arguments, ids, status codes."""

from __future__ import annotations

import logging
import random
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from rdma_comm import RDMACommunicator
from support.old_engines import (
    BLOCKS,
    GENERATIONS,
    HERE,
    LAYERS,
    Cache,
    Pair,
    first,
    second,
    third,
)
from support.patience import eventually

Opened = Callable[[RDMACommunicator], RDMACommunicator]

THREADS = 33  # as many as one of its users starts


def same(source: Any, target: Any, local: Sequence[int], remote: Sequence[int]) -> bool:
    """Whether blocks `remote` of the target are blocks `local` of the source, and all others 0."""
    others = np.setdiff1d(np.arange(BLOCKS), remote)
    return np.array_equal(target[remote], source[local]) and not target[others].any()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_decode_reads_what_prefill_wrote(generation: str) -> None:
    with ExitStack() as stack:
        pair = Pair(GENERATIONS[generation], stack)

        result = pair.write([3, 4, 60], [9, 2, 63], layer=1)

        assert result == 0
        assert same(pair.source.keys[1], pair.target.keys[1], [3, 4, 60], [9, 2, 63])
        assert same(pair.source.values[1], pair.target.values[1], [3, 4, 60], [9, 2, 63])
        assert not pair.target.keys[[0, 2, 3]].any()


@pytest.mark.parametrize("generation", ["third", "third_by_name"])
def test_scales_travel_with_their_blocks(generation: str) -> None:
    with ExitStack() as stack:
        pair = Pair(GENERATIONS[generation], stack)

        result = pair.write([5, 6], [1, 0], layer=3)

        assert result == 0
        assert same(pair.source.key_scales[3], pair.target.key_scales[3], [5, 6], [1, 0])
        assert same(pair.source.value_scales[3], pair.target.value_scales[3], [5, 6], [1, 0])


def test_a_cache_of_keys_only_is_moved(opened: Opened) -> None:
    source, target = Cache(seed=7), Cache(seed=None)
    keys = [Cache.pointers(cache.keys) for cache in (source, target)]
    prefill = opened(RDMACommunicator("prefill", 0, "0", keys[0], [], BLOCKS, 1024))
    decode = opened(RDMACommunicator("decode", 0, "0", keys[1], [], BLOCKS, 1024))
    assert prefill.connect(HERE, str(decode.port))

    result = prefill.write_cache(HERE, str(decode.port), [1], [2], 0)

    assert result == 0
    assert same(source.keys[0], target.keys[0], [1], [2])


def as_torch(ids: Sequence[int]) -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed").tensor(ids)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda ids: np.array(ids, np.int32),
        lambda ids: np.array(ids, np.int64),
        lambda ids: [np.int64(i) for i in ids],
        as_torch,
        lambda ids: as_torch(ids).int(),
    ],
    ids=["list", "tuple", "int32", "int64", "list of int64", "torch int64", "torch int32"],
)
def test_ids_may_be_any_kind_of_list(make: Callable[[Sequence[int]], Any], pair: Pair) -> None:
    result = pair.write(make([3, 4]), make([9, 2]))

    assert result == 0
    assert same(pair.source.keys[0], pair.target.keys[0], [3, 4], [9, 2])


@pytest.mark.parametrize("kind", [str, int])
def test_ports_may_be_strings_or_numbers(kind: type, pair: Pair) -> None:
    port = kind(pair.port)

    assert pair.prefill.connect(HERE, port) == 0
    assert pair.prefill.is_connected(HERE, port) is True
    assert pair.prefill.write_cache(HERE, port, [1], [1], 0) == 0


def test_the_arguments_of_calls_go_by_name_too(pair: Pair) -> None:
    status = pair.prefill.connect(dst_ip=HERE, dst_port=pair.port, dst_tp_size=0)
    result = pair.prefill.write_cache(
        dst_ip=HERE, dst_port=pair.port, local_block_ids=[1], remote_block_ids=[2], layer_idx=0
    )

    assert status == 0
    assert result == 0
    assert pair.prefill.is_connected(dst_ip=HERE, dst_port=pair.port)


def test_success_is_read_as_zero_and_as_true(pair: Pair) -> None:
    assert pair.status == 0
    assert pair.status


def test_connecting_twice_is_no_error(pair: Pair) -> None:
    assert pair.prefill.connect(HERE, pair.port) == 0


def test_an_empty_write_succeeds(pair: Pair) -> None:
    empty = (([], []), ((), ()), (np.array([]), np.array([], np.int64)))

    assert [pair.write(local, remote) for local, remote in empty] == [0, 0, 0]


def test_each_of_33_threads_finds_its_bytes_there_when_its_call_returns(pair: Pair) -> None:
    # Each thread has two blocks of its own; it writes them again and again, in any layer.
    def engine(thread: int) -> list[bool]:
        dice = random.Random(thread)
        right = []
        mine = [thread] if thread >= THREADS - 2 else [thread, thread + THREADS]
        for _ in range(20):
            layer, local = dice.randrange(LAYERS), dice.sample(range(BLOCKS), len(mine))
            result = pair.write(local, mine, layer)
            found = pair.target.keys[layer][mine], pair.target.values[layer][mine]
            wanted = pair.source.keys[layer][local], pair.source.values[layer][local]
            right.append(result == 0 and all(map(np.array_equal, found, wanted)))
        return right

    # Blocks 0..30, 33..63 and 31, 32: no two threads share one.
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(engine, range(THREADS)))

    assert all(all(right) for right in results)


# ---- what goes wrong ---------------------------------------------------------------------------


def test_nobody_there_is_an_error(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    prefill = opened(first("prefill", "0", Cache(seed=7)))

    status = prefill.connect(HERE, "1")

    assert status == 2
    assert not status
    assert f"connect to {HERE}:1" in caplog.text
    assert "refused" in caplog.text


def test_a_peer_that_says_nothing_is_a_timeout(opened: Opened) -> None:
    prefill = opened(first("prefill", "0", Cache(seed=7)))

    with socket.create_server((HERE, 0)) as silent:
        status = prefill.connect(HERE, silent.getsockname()[1])

    assert status == 3
    assert not status


def test_a_different_cache_is_an_error(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    prefill = opened(first("prefill", "0", Cache(seed=7, block_bytes=512)))
    decode = opened(first("decode", "0", Cache(seed=None)))

    status = prefill.connect(HERE, str(decode.port))

    assert status == 2
    assert "512" in caplog.text
    assert "1024" in caplog.text


@pytest.mark.parametrize("arguments", [(HERE, "http"), (HERE, 65536), (HERE, "0"), (HERE, None)])
def test_a_port_that_is_none_is_a_bad_parameter(arguments: tuple[Any, Any], pair: Pair) -> None:
    assert pair.prefill.connect(*arguments) == 4
    assert not pair.prefill.is_connected(*arguments)


@pytest.mark.parametrize("dst_tp_size", [-1, "2", 1.0])
def test_a_tensor_parallel_size_that_is_none_is_a_bad_parameter(
    dst_tp_size: Any, pair: Pair
) -> None:
    assert pair.prefill.connect(HERE, pair.port, dst_tp_size) == 4


def test_a_tensor_parallel_size_that_does_not_divide_is_a_bad_parameter(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    prefill = opened(second("prefill", "0", Cache(seed=7), 4, 0))

    assert prefill.connect(HERE, "1", 3) == 4
    assert "dst_tp_size=3 does not divide prefill_tp_size=4" in caplog.text


def test_decode_does_not_connect(pair: Pair) -> None:
    assert pair.decode.connect(HERE, pair.port) == 4


@pytest.mark.parametrize(
    ("local", "remote", "layer"),
    [
        ([-1], [0], 0),
        ([0], [-1], 0),
        ([BLOCKS], [0], 0),
        ([0], [BLOCKS], 0),
        ([0, 1], [5, 5], 0),
        ([0, 1], [5], 0),
        ([], [5], 0),
        ([0], [0], -1),
        ([0], [0], LAYERS),
        (np.zeros(1), np.zeros(1), 0),
        (np.zeros((1, 1), np.int64), [0], 0),
        (0, 0, 0),
        (None, None, 0),
    ],
)
def test_a_bad_write_returns_minus_one_and_moves_nothing(
    local: Any, remote: Any, layer: int, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    result = pair.write(local, remote, layer)

    assert result == -1
    assert f"write_cache to {HERE}:{pair.port}" in caplog.text
    assert not pair.target.keys.any()
    assert not pair.target.values.any()


def test_a_write_to_a_stranger_returns_minus_one(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    assert pair.prefill.write_cache(HERE, "1", [0], [0], 0) == -1
    assert "not connected" in caplog.text


def test_a_decode_that_went_is_not_connected_and_not_written_to(pair: Pair) -> None:
    pair.decode.close()

    assert pair.write([0], [0]) == -1
    assert pair.prefill.is_connected(HERE, pair.port) is False


def test_calls_after_close_fail_by_status(pair: Pair) -> None:
    pair.prefill.close()

    assert pair.prefill.connect(HERE, pair.port) == 4
    assert pair.write([0], [0]) == -1
    assert pair.prefill.is_connected(HERE, pair.port) is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "both"}, "role is 'both'"),
        ({"port": "http"}, "port is 'http'"),
        ({"local_key_cache": [0]}, r"local_key_cache\[0\] is at address 0"),
        ({"local_value_cache": [4096, 8192]}, "1 layers but local_value_cache 2"),
        ({"block_bytes": 0}, "block_bytes is 0"),
        ({"prefill_tp_idx": 1}, "prefill_tp_idx=1 is not a rank"),
    ],
)
def test_a_bad_constructor_argument_is_an_exception(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "role": "prefill",
        "gpu_idx": 0,
        "port": "0",
        "local_key_cache": [4096],
        "local_value_cache": [8192],
        "block_number": 8,
        "block_bytes": 64,
    }

    with pytest.raises(ValueError, match=message):
        RDMACommunicator(**(good | change))


def test_failures_are_logged_as_errors(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.write([-1], [0])

    assert [record.levelno for record in caplog.records if "write_cache" in record.message] == [
        logging.ERROR
    ]


# ---- tensor parallel ---------------------------------------------------------------------------


@pytest.mark.parametrize("dst_tp_size", [0, 2])
def test_ranks_of_equal_sizes_write_whole_blocks(dst_tp_size: int, opened: Opened) -> None:
    source, target = Cache(seed=7), Cache(seed=None)
    prefill = opened(second("prefill", "0", source, 2, 1))
    decode = opened(first("decode", "0", target))

    assert prefill.connect(HERE, str(decode.port), dst_tp_size) == 0
    assert prefill.write_cache(HERE, str(decode.port), [1], [2], 0) == 0
    assert same(source.keys[0], target.keys[0], [1], [2])


@pytest.mark.parametrize(("size", "dst_tp_size", "ranks"), [(2, 1, (0, 1)), (4, 2, (2, 3))])
def test_two_prefill_ranks_fill_the_halves_of_one_decode_rank(
    size: int, dst_tp_size: int, ranks: tuple[int, int], opened: Opened
) -> None:
    halves, target = [Cache(seed=rank, block_bytes=512) for rank in ranks], Cache(seed=None)
    decode = opened(first("decode", "0", target))
    prefills = [
        opened(second("prefill", "0", half, size, rank))
        for half, rank in zip(halves, ranks, strict=True)
    ]

    for prefill in prefills:
        assert prefill.connect(HERE, str(decode.port), dst_tp_size) == 0
        assert prefill.write_cache(HERE, str(decode.port), [1], [2], 0) == 0

    whole = np.concatenate([half.keys[0] for half in halves], axis=1)
    assert same(whole, target.keys[0], [1], [2])


def test_a_link_that_broke_is_opened_again_for_the_same_rank(opened: Opened) -> None:
    half, target = Cache(seed=7, block_bytes=512), Cache(seed=None)
    prefill = opened(second("prefill", "0", half, 2, 1))
    decode = opened(first("decode", "0", target))
    port = str(decode.port)
    assert prefill.connect(HERE, port, 1) == 0

    engine = decode._native._engine
    [(link_id, *_)] = engine.inbound_links()
    engine.end_link(link_id, "broken by the test")
    eventually(lambda: not prefill.is_connected(HERE, port), 10, "prefill sees the broken link")
    result = prefill.write_cache(HERE, port, [1], [2], 0)

    assert result == 0
    assert np.array_equal(target.keys[0][2][512:], half.keys[0][1])
    assert not target.keys[0][2][:512].any()


def test_a_decode_that_restarts_gets_nothing_before_it_is_connected_to(opened: Opened) -> None:
    source, target = Cache(seed=7), Cache(seed=None)
    prefill, decode = opened(first("prefill", "0", source)), opened(first("decode", "0", target))
    port = str(decode.port)
    assert prefill.connect(HERE, port) == 0

    decode.close()
    opened(first("decode", port, target))

    assert prefill.write_cache(HERE, port, [1], [2], 0) == -1
    assert prefill.connect(HERE, port) == 0
    assert prefill.write_cache(HERE, port, [1], [2], 0) == 0
    assert same(source.keys[0], target.keys[0], [1], [2])


def test_ranks_without_a_word_about_decode_do_not_write_into_larger_blocks(
    opened: Opened,
) -> None:
    prefill = opened(second("prefill", "0", Cache(seed=7, block_bytes=512), 2, 0))
    decode = opened(first("decode", "0", Cache(seed=None)))

    assert prefill.connect(HERE, str(decode.port)) == 2


# ---- two processes -----------------------------------------------------------------------------

DECODE = """
import sys
from support.old_engines import Cache, {generation}
cache = Cache(seed=None)
comm = {generation}("decode", "0", cache)
print(comm.port, flush=True)
sys.stdin.readline()
print(cache.keys[2][9].tobytes().hex(), cache.key_scales[2][9].tobytes().hex(), flush=True)
"""


def test_prefill_writes_into_another_process(opened: Opened) -> None:
    source = Cache(seed=7)
    prefill = opened(third("prefill", "0", source))
    code = textwrap.dedent(DECODE.format(generation="third"))
    path = [entry for entry in sys.path if entry]

    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        status = prefill.connect(HERE, port)
        result = prefill.write_cache(HERE, port, [3], [9], 2)
        out, _ = process.communicate("now\n", timeout=30)

    assert (status, result) == (0, 0)
    assert out.split() == [
        source.keys[2][3].tobytes().hex(),
        source.key_scales[2][3].tobytes().hex(),
    ]
