"""The demo in GPU memory, rehearsed on the CPU: all of it but CUDA itself."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rdma_kv.cli.demo.gpu import verdict
from rdma_kv.cli.demo.gpu.first_token import FirstToken
from rdma_kv.cli.demo.gpu.memory import GIB, check_fits, needed_bytes
from rdma_kv.cli.demo.gpu.timeline import LayerStamps, busy_ms, layer_times
from rdma_kv.cli.demo.paging import draw_tables, pool_blocks
from rdma_kv.cli.demo.settings import DemoError, Settings

from .test_demo import demo

MS = 1_000_000
SMALL = ("--device", "rehearsal", "--layers", "3", "--prompt-tokens", "90", "--generate", "12")

has_model = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_model = pytest.mark.skipif(not has_model, reason="needs torch and transformers")
has_gpu = False
if has_model:
    import torch

    has_gpu = torch.cuda.is_available()


@pytest.fixture(scope="module")
def rehearsed() -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    ran = demo(*SMALL, "--json")
    return ran, json.loads(ran.stdout) if ran.returncode == 0 else {}


@needs_model
def test_decode_generates_the_tokens_of_one_process(rehearsed) -> None:
    ran, report = rehearsed

    assert ran.returncode == 0, ran.stderr
    assert report["decode"]["tokens"] == report["reference"]["tokens"]
    assert len(set(report["reference"]["tokens"])) > 5  # else equality would prove little
    assert report["decode"]["kv"] == report["prefill"]["kv"]
    assert len({report[role]["weights"] for role in ("prefill", "decode", "reference")}) == 1
    # 3 layers x K and V x 6 blocks x (2 KV heads x 16 tokens x 32 numbers x 2 bytes)
    assert report["prefill"]["bytes"] == 3 * 2 * 6 * 2048


@needs_model
def test_the_report_tells_hidden_from_exposed_and_transfer_from_recomputing(rehearsed) -> None:
    _, report = rehearsed
    exposed, first = report["exposed"], report["first_token"]

    assert exposed["hidden_ms"] + exposed["exposed_ms"] == pytest.approx(exposed["transfer_ms"])
    assert first["exposed_ms"] + first["gather_and_step_ms"] == pytest.approx(
        first["via_transfer_ms"]
    )
    assert first["recompute_ms"] > 0
    assert [row["layer"] for row in report["prefill"]["layers"]] == [0, 1, 2]


@needs_model
def test_people_are_shown_both_ways_to_the_first_token_and_what_takes_long() -> None:
    ran = demo(*SMALL, "--transport", "tcp")

    assert ran.returncode == 0, ran.stderr
    for words in ("first token", "recomputed", "hidden", "exposed", "all 12 tokens are equal"):
        assert words in ran.stdout
    assert "prefill: drew" in ran.stderr


@needs_model
def test_a_spoiled_block_is_noticed() -> None:
    ran = demo(*SMALL, "--corrupt")

    assert ran.returncode == 1, ran.stderr
    assert "corruption caught" in ran.stdout


@needs_model
@pytest.mark.skipif(has_gpu, reason="there is a GPU here")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    ran = demo("--device", "cuda", "--model", "tiny", "--layers", "1", "--prompt-tokens", "32")

    assert ran.returncode == 3
    assert "failed: --device cuda: torch" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "abacus"], "abacus"),
        (["--prefill-gpu", "1"], "need --device cuda"),
        (["--model", "tiny"], "need --device cuda"),
        (["--device", "cuda", "--model", "small"], "--model small: allowed: tiny, 7b"),
        (["--device", "cuda", "--prefill-gpu", "-1"], "--prefill-gpu -1"),
        (["--device", "cuda", "--record", "kv.npz"], "--record and --replay are for host memory"),
        (["--device", "cuda", "--layers", "0"], "--layers 0"),
    ],
)
def test_bad_arguments_are_named_and_end_with_2(arguments: list[str], complaint: str) -> None:
    ran = demo(*arguments)

    assert ran.returncode == 2
    assert complaint in ran.stderr


def test_what_was_not_asked_for_depends_on_the_device() -> None:
    large = Settings.of_device("cuda")

    assert large.prompt_tokens >= 8192
    assert 7e9 < large.dimensions.parameters(large.layers) < 8e9
    assert large.block_bytes == 32 * 1024  # 16 tokens x 8 KV heads x 128 numbers x 2 bytes
    assert Settings.of_device("cpu") == Settings()


def test_runs_with_other_weights_are_told_apart() -> None:
    settings = Settings.of_device("cuda")

    tags = {
        settings.tag,
        replace(settings, weights="01234567").tag,
        replace(settings, weights="76543210").tag,
        replace(settings, model="tiny").tag,
    }

    assert len(tags) == 4


# ---- memory


def test_memory_that_is_too_small_is_named_with_what_helps() -> None:
    settings = Settings.of_device("cuda")
    needed = needed_bytes(settings, pool_blocks(settings)[1])

    check_fits(needed, needed, "GPU 1")
    with pytest.raises(DemoError, match=r"GPU 1 has 8\.0 GiB free, and .* GiB .*--prompt-tokens"):
        check_fits(needed, 8 * GIB, "GPU 1")
    check_fits(needed, None, "CPU")


def test_the_need_covers_weights_pools_and_the_cache_in_one_piece() -> None:
    settings = Settings.of_device("cuda")
    blocks = pool_blocks(settings)[1]
    weights = 2 * settings.dimensions.parameters(settings.layers)
    pools = settings.layers * 2 * blocks * settings.block_bytes

    needed = needed_bytes(settings, blocks)

    assert weights + pools + settings.total_bytes + GIB < needed < 24 * GIB


# ---- times


def stamps(layer: int, ready: int, paged: int, called: int, finished: int) -> LayerStamps:
    """All in milliseconds; 4000 bytes."""
    return LayerStamps(
        layer, ready * MS, paged * MS, called * MS, (called + 1) * MS, finished * MS, 4000
    )


@pytest.mark.parametrize(
    ("called", "finished", "hidden", "exposed"),
    [
        (2, 25, 13, 0),  # called ahead of the GPU: the transfer begins when the layer is paged
        (20, 25, 5, 0),  # called after that: it begins with the call
        (2, 70, 49, 9),  # 61 to 70: the model had ended
        (65, 70, 0, 5),  # all of it after the end
        (2, 11, 0, 0),  # a clock's error must not make time run backwards
    ],
)
def test_hidden_is_what_passed_before_the_end_of_compute(
    called: int, finished: int, hidden: int, exposed: int
) -> None:
    first = stamps(0, ready=10, paged=12, called=called, finished=finished)
    second = stamps(1, ready=30, paged=33, called=3, finished=36)

    times = layer_times([first, second], computed_ns=61 * MS)

    assert times[0].hidden_ms == pytest.approx(hidden)
    assert times[0].exposed_ms == pytest.approx(exposed)
    assert (times[0].compute_ms, times[0].copy_ms, times[0].call_ms) == (18, 2, 1)
    assert times[1].compute_ms == 28


def test_overlapping_writes_are_busy_once() -> None:
    three = [stamps(0, 0, 10, 0, 20), stamps(1, 0, 15, 0, 30), stamps(2, 0, 40, 0, 41)]

    assert busy_ms(three) == pytest.approx(21)


def test_the_first_token_counts_from_the_end_of_prefills_compute() -> None:
    results = {
        "prefill": {"computed_ns": 100 * MS},
        "decode": {"received_ns": 104 * MS, "first_token_ns": 110 * MS, "recompute_ms": 250.0},
    }

    first = FirstToken.of(results)

    assert first is not None
    assert (first.exposed_ms, first.gather_and_step_ms, first.via_transfer_ms) == (4, 6, 10)
    assert first.times_sooner == 25
    assert FirstToken.of({"decode": results["decode"]}) is None


# ---- verdict


def outcome(**changed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    of_role: dict[str, Any] = {"tokens": [1, 2, 3], "kv": ["a", "b"], "device": "GPU"}
    results = {role: copy.deepcopy(of_role) for role in ("prefill", "decode", "reference")}
    for role, fields in changed.items():
        results[role] |= fields
    return results


@pytest.mark.parametrize(
    ("results", "status", "words"),
    [
        (outcome(), 0, "all 3 tokens .*; K and V of 2 layers are equal to prefill's"),
        (outcome(decode={"kv": ["a", "x"]}), 1, "BYTES DIFFER: decode's layer 1 are not prefill's"),
        (outcome(decode={"tokens": [1, 9, 3]}), 1, "does not compute the same twice"),
        (
            outcome(decode={"tokens": [1, 9, 3]}, reference={"kv": ["x", "y"]}),
            1,
            "every byte arrived, but prefill's GPU computed other ones .* layers 0, 1",
        ),
        (
            outcome(decode={"corrupted_block": 7, "tokens": [9, 2, 3], "kv": ["x", "b"]}),
            1,
            "corruption caught: block 7 .* token 0 is the first to differ",
        ),
        (
            outcome(decode={"corrupted_block": 7, "kv": ["x", "b"]}),
            1,
            "checksums of layer 0 differ, though all tokens are equal",
        ),
        (outcome(decode={"corrupted_block": 7}), 4, "CORRUPTION NOT NOTICED"),
    ],
)
def test_tokens_and_bytes_are_judged(results: Any, status: int, words: str) -> None:
    judged = verdict.judge(results)

    assert judged.exit_status == status
    assert re.search(words, judged.text), judged.text


# ---- pools of tensors


@needs_model
@pytest.mark.parametrize("tokens", [2, 15, 16, 17, 100])
def test_what_was_put_into_blocks_comes_back_in_order(tokens: int) -> None:
    from rdma_kv.cli.demo.gpu.paging import DTYPE, PagedTensors, Table

    settings = replace(Settings.of_device("rehearsal"), layers=2, prompt_tokens=tokens)
    cpu = torch.device("cpu")
    cache = PagedTensors(settings, pool_blocks(settings)[1], cpu)
    table = Table(draw_tables(settings).decode, cpu)
    heads, width = settings.dimensions.kv_heads, settings.dimensions.head_dim
    key, value = torch.randn(2, heads, tokens, width).to(DTYPE)

    cache.put(1, table, key, value)

    back_key, back_value = cache.get(1, table, tokens - 1)
    assert torch.equal(back_key, key[:, :-1])
    assert torch.equal(back_value, value[:, :-1])
    assert not cache.keys[0].any()  # the other layer
    elsewhere = sorted(set(range(len(cache.keys[1]))) - set(table.ids.tolist()))
    assert not cache.keys[1][elsewhere].any()


@needs_model
def test_a_checksum_sees_one_element_and_where_it_is() -> None:
    from rdma_kv.cli.demo.gpu.checksums import checksum

    plain = torch.zeros(6, 2, 4, dtype=torch.bfloat16)
    one, moved, swapped = plain.clone(), plain.clone(), plain.clone()
    one[3, 1, 2] = 1
    moved[3, 1, 1] = 1
    swapped[2, 1, 2] = 1

    sums = {checksum([tensor]) for tensor in (plain, one, moved, swapped)}

    assert len(sums) == 4
    assert checksum([one, plain]) != checksum([plain, one])


@needs_model
def test_layer_checksums_do_not_depend_on_where_the_blocks_lie() -> None:
    from rdma_kv.cli.demo.gpu.checksums import layer_checksums
    from rdma_kv.cli.demo.gpu.paging import DTYPE, PagedTensors, Table

    settings = replace(Settings.of_device("rehearsal"), layers=1, prompt_tokens=100)
    cpu = torch.device("cpu")
    tables = draw_tables(settings)
    heads, width = settings.dimensions.kv_heads, settings.dimensions.head_dim
    key, value = torch.randn(2, heads, 100, width).to(DTYPE)
    sides = []
    for blocks, ids in zip(pool_blocks(settings), (tables.prefill, tables.decode), strict=True):
        cache, table = PagedTensors(settings, blocks, cpu), Table(ids, cpu)
        cache.put(0, table, key, value)
        sides.append((cache, table))
    here, there = (layer_checksums(*side, 1) for side in sides)

    cache, table = sides[1]
    spoiled = cache.flip_block(table)

    assert here == there
    assert spoiled in tables.decode
    assert layer_checksums(cache, table, 1) != here


# ---- what prefill hands over


class Recorder:
    """Stands in for a communicator: keeps what each write was given, and what its source held."""

    def __init__(self) -> None:
        self.writes: list[dict[str, Any]] = []
        self.cache: Any = None

    def write_cache_async(self, *where: Any, layer_idx: int, **rest: Any) -> Any:
        is_zero = not self.cache.keys[layer_idx].any()
        self.writes.append({"layer": layer_idx, "is_zero": is_zero, **rest})
        return SimpleNamespace(wait=lambda: True)


@pytest.fixture
def writer() -> Any:
    from rdma_kv.cli.accelerator import Cpu
    from rdma_kv.cli.demo.gpu.paging import PagedTensors
    from rdma_kv.cli.demo.gpu.prefill import LayerWriter

    settings = replace(Settings.of_device("rehearsal"), layers=2, prompt_tokens=20)
    comm, cpu = Recorder(), Cpu()
    comm.cache = PagedTensors(settings, pool_blocks(settings)[0], cpu.device)
    made: Any = LayerWriter(comm, ("here", "1"), comm.cache, cpu, settings, lambda *told: None)  # type: ignore[arg-type]
    sizes = settings.dimensions
    made.ones = torch.ones(sizes.kv_heads, 20, sizes.head_dim, dtype=torch.bfloat16)
    made.comm = comm
    made.tag = settings.tag
    return made


@needs_model
def test_each_layer_is_paged_before_the_mark_that_its_write_waits_for(writer) -> None:
    for layer in range(2):
        writer(layer, writer.ones, writer.ones)

    assert [w["layer"] for w in writer.comm.writes] == [0, 1]
    assert [w["tag"] for w in writer.comm.writes] == [0, writer.tag]  # the last one is announced
    assert not any(w["is_zero"] for w in writer.comm.writes)
    for write, submitted in zip(writer.comm.writes, writer.submitted, strict=True):
        assert write["after"] is submitted.paged
        assert submitted.ready.passed_ns <= submitted.paged.passed_ns <= submitted.called_ns


@needs_model
def test_a_warm_up_moves_zeros_so_that_nothing_right_is_at_decode_before_its_time(writer) -> None:
    writer.page(0, writer.ones, writer.ones)

    writer.warm_up()

    assert [(w["layer"], w["tag"], w["is_zero"]) for w in writer.comm.writes] == [
        (0, 0, True),
        (1, 0, True),
    ]
