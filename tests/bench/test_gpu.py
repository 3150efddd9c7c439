"""`bench/gpu.py`, rehearsed on the CPU: processes, checks, tables, sums. No figure is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rdma_kv.cli.bench.gpu import report
from rdma_kv.cli.bench.gpu.breakdown import (
    AFTER,
    BEFORE,
    STAGES,
    Breakdown,
    all_stages,
    middle_half,
)
from rdma_kv.cli.bench.gpu.crew import Crew, Engine
from rdma_kv.cli.bench.gpu.machine import link_between
from rdma_kv.cli.bench.gpu.measure import largest_pool
from rdma_kv.cli.bench.gpu.place import Place
from rdma_kv.cli.bench.gpu.process import Remote
from rdma_kv.cli.bench.gpu.report import Row
from rdma_kv.cli.bench.gpu.settings import Budget, Settings
from rdma_kv.cli.bench.gpu.setup_cost import MIB, measure_setup
from rdma_kv.cli.bench.gpu.work import Job
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.bench.work import Times
from support import toy_engines
from support.patience import scaled
from support.toy_engines import Sick, Told

torch = pytest.importorskip("torch", reason="needs torch, whose tensors are measured")

PROGRAM = Path(__file__).parents[2] / "bench" / "gpu.py"
HERE = Place("cpu", 0, 1 << 20)
LIMIT_S = scaled(60)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHE_")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(100),
    )


def test_a_rehearsal_fills_every_table_and_keeps_it(tmp_path):
    file = tmp_path / "gpu.json"
    small = ("--block-kib=1", "--block-kib=4", "--model-layers=3", "--model-blocks=16")

    ended = run(
        "--rehearse", *small, "--peer=none", "--breakdown", "--seconds=0.05", f"--json={file}"
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""  # nothing was skipped
    found = json.loads(file.read_text())
    measured = {(r["table"], r["what"], r["block_bytes"]) for r in found["rows"]}
    sizes = (1024, 4096)
    assert measured == {
        *((table, "bulk copy", None) for table in ("random", "contiguous", "model")),
        *((table, "rdma_kv", size) for table in ("random", "contiguous") for size in sizes),
        ("model", "rdma_kv", 32768),
        *(("staged", f"rdma_kv {where}", size) for where in ("host", "gpu") for size in sizes),
    }
    assert all(row["repeats"] >= 9 for row in found["rows"])
    model = next(r for r in found["rows"] if (r["table"], r["what"]) == ("model", "rdma_kv"))
    assert model["bytes"] == 3 * 2 * 12 * 32768  # layers, K and V, blocks
    assert found["setup"]["peers"] == 4
    # The stages lie end to end on one clock: what is missing would be a stage that was not told.
    assert found["breakdown"]["explained"] > 0
    for title in report.TITLES.values():
        assert title in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--block-kib", "0"], "--block-kib must be at least 1"),
        (["--seconds", "0"], "must be more than 0"),
        (["--table", "kitchen"], "--table kitchen: allowed: random, contiguous"),
        (["--peer", "pigeon"], "--peer pigeon: allowed: nixl, mooncake"),
        (["--source-gpu", "-1"], "must be at least 0"),
        (["--model-blocks", "3"], "--model-blocks at least 4"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, words):
    ended = run(*arguments)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_once_and_ends():
    ended = run("--block-kib=1")

    assert ended.returncode == 3
    assert "torch" in ended.stderr
    assert ended.stderr.count("CUDA") <= 2
    assert "Traceback" not in ended.stderr


# ---- work


def test_a_job_names_as_many_blocks_of_either_side_none_twice():
    src, dst = Job(1024).ids()

    assert len(src) == len(dst) == 1538
    assert len(set(src.tolist())) == len(set(dst.tolist())) == 1538
    assert not np.array_equal(src, np.sort(src))
    assert not np.array_equal(src, dst)


def test_a_model_counts_layers_keys_and_values():
    (job,) = (Job(32768, layers=80, has_values=True, pool_blocks=2048),)

    assert job.regions == 160
    assert job.pool_bytes == 10_737_418_240
    assert job.bytes == 160 * 1538 * 32768
    assert largest_pool(Settings()) == job.pool_bytes
    assert largest_pool(Settings(tables=("random",))) == 2048 * 256 * 1024


def test_indices_and_addresses_run_through_all_regions():
    job = Job(1024, contiguous=True, layers=2, pool_blocks=4)

    src, dst = job.indices()

    assert src.tolist() == dst.tolist() == [0, 1, 2, 4, 5, 6]
    assert job.all_addresses(1 << 40)[src].tolist() == [(1 << 40) + 1024 * i for i in src.tolist()]
    assert src.dtype == np.int32


# ---- content


@pytest.fixture
def moved() -> tuple[Job, list[torch.Tensor]]:
    """A target's pools as they must be after the job."""
    from rdma_kv.cli.bench.gpu.content import fill

    job = Job(1024, layers=2, pool_blocks=64)
    source, target = ([torch.zeros(64, 1024, dtype=torch.uint8) for _ in range(2)] for _ in "ab")
    fill(source, job)
    src, dst = job.ids()
    for here, there in zip(source, target, strict=True):
        there[torch.from_numpy(dst)] = here[torch.from_numpy(src)]
    return job, target


def test_right_bytes_are_right(moved):
    from rdma_kv.cli.bench.gpu.content import first_wrong

    job, target = moved

    assert first_wrong(target, job) is None


@pytest.mark.parametrize("place", ["first", "last", "between"])
def test_one_wrong_byte_is_named_wherever_it_is(moved, place):
    from rdma_kv.cli.bench.gpu.content import first_wrong

    job, target = moved
    written = job.source_of() >= 0
    block = int(np.flatnonzero(~written if place == "between" else written)[-1])
    target[1][block, {"first": 0, "last": -1, "between": 500}[place]] ^= 1

    assert first_wrong(target, job) == f"region 1, block {block}"


def test_regions_and_blocks_that_were_swapped_are_found(moved):
    from rdma_kv.cli.bench.gpu.content import first_wrong

    job, target = moved
    a, b = np.flatnonzero(job.source_of() >= 0)[:2].tolist()
    swapped = target[0].clone()
    swapped[[a, b]] = target[0][[b, a]]

    assert first_wrong([target[1], target[0]], job) is not None
    assert first_wrong([swapped, target[1]], job) == f"region 0, block {a}"


def test_content_is_the_same_in_pieces_of_any_size(monkeypatch):
    from rdma_kv.cli.bench.gpu import content

    job = Job(2048, pool_blocks=64)
    whole, pieces = (torch.zeros(64, 2048, dtype=torch.uint8) for _ in range(2))
    content.fill([whole], job)
    monkeypatch.setattr(content, "_CHUNK_BYTES", 5 * 2048)

    content.fill([pieces], job)

    assert torch.equal(whole, pieces)
    assert len(set(map(bytes, whole.numpy()))) == 64  # no two blocks alike


# ---- processes


@pytest.fixture
def sick():
    remote = Remote("sick", Sick, env={})
    remote.await_start(LIMIT_S)
    yield remote
    remote.end()


def test_a_call_that_raises_is_told_in_one_line_and_the_next_one_works(sick):
    with pytest.raises(BenchError, match=r"^sick: fail: RuntimeError: out of luck$"):
        sick.call(LIMIT_S, "fail")

    assert sick.call(LIMIT_S, "answer", 41) == 42


def test_a_crash_names_its_signal(sick):
    with pytest.raises(BenchError, match="sick: ended during crash, killed by SIGSEGV"):
        sick.call(LIMIT_S, "crash")


def test_a_hang_ends_at_its_deadline(sick):
    with pytest.raises(BenchError, match="sick: no answer to hang within 0 s"):
        sick.call(0.2, "hang")


def test_a_child_has_the_environment_of_its_engine():
    remote = Remote("told", Told, env={"UCX_TLS": "pigeons"})
    try:
        remote.await_start(LIMIT_S)

        assert remote.call(LIMIT_S, "told") == "pigeons"
    finally:
        remote.end()
    assert "UCX_TLS" not in os.environ


def test_nothing_waits_longer_than_the_budget():
    budget = Budget(1000)

    assert 0 < budget.limit_s(60) <= 60
    assert 900 < budget.limit_s(5000) <= 1000
    with pytest.raises(BenchError, match="--budget is over"):
        Budget(0).limit_s(1)


# ---- crews


def crew(target: str, initiator: str = "Writer") -> Crew:
    return Crew(
        Engine("toy", toy_engines.__name__, target, initiator), HERE, HERE, Budget(LIMIT_S), LIMIT_S
    )


def test_a_crew_keeps_its_processes_from_job_to_job():
    pair = crew("Honest")
    try:
        seen = [pair.times(Job(1024), 0.1)[0].p50_us for _ in range(3)]
    finally:
        pair.end()

    assert seen == [1, 2, 3]


def test_wrong_bytes_cost_the_row_and_both_processes():
    pair = crew("Corrupting")
    try:
        with pytest.raises(BenchError, match="WRONG BYTES arrived, first in region 0, block 7"):
            pair.times(Job(1024), 0.1)

        assert pair._sides is None
    finally:
        pair.end()


# ---- set-up costs


class FakeSide:
    """Stands in for a Remote: what it answers is in a list for each method."""

    def __init__(self, **answers: list[object]) -> None:
        self._answers = answers

    def call(self, limit_s: float, method: str, *args: object) -> object:
        return self._answers[method].pop(0)


def test_memory_is_told_without_the_pools_and_by_peer():
    free = [int(mib * MIB) for mib in (1000, 934, 924, 918)]
    prefill = FakeSide(free=free[:], open=[None], connect=[(9.0, 5.0), (2.0, 1.0), (4, 1), (3, 1)])
    decodes = FakeSide(free=[int(mib * MIB) for mib in (1000, 736, 732, 726)], open=[[1, 2, 3, 4]])

    cost = measure_setup(prefill, decodes, 1.0)

    assert (cost.first_connect_ms, cost.further_connect_ms, cost.first_write_ms) == (9, 3, 5)
    assert cost.source_communicator_mib == pytest.approx(2)  # 66 less a pool of 64
    assert cost.target_communicator_mib == pytest.approx(2)  # 264 less four pools, of four
    assert (cost.source_first_peer_mib, cost.source_further_peer_mib) == (10, 2)
    assert (cost.target_first_peer_mib, cost.target_further_peer_mib) == (4, 2)


def test_without_a_gpu_there_is_no_memory_to_tell():
    prefill = FakeSide(free=[None] * 4, open=[None], connect=[(1.0, 1.0)] * 4)
    decodes = FakeSide(free=[None] * 4, open=[[1, 2, 3, 4]])

    cost = measure_setup(prefill, decodes, 1.0)

    assert cost.source_first_peer_mib is None
    assert any(line.split() == ["source_gpu_mib", "-", "-"] for line in report.setup_lines(cost))


# ---- breakdown


def test_stages_lie_end_to_end_from_the_call_to_its_return():
    moments = dict.fromkeys(STAGES, 0) | {"entered": 110, "planned": 20, "completed": 90}

    stages = all_stages(100, 204, moments)

    assert list(stages.values()) == [10, 20, 70, 4]
    assert list(stages) == [BEFORE, STAGES["planned"], STAGES["completed"], AFTER]


def test_slow_writes_do_not_show_and_the_stages_of_the_others_add_up():
    usual = [(100 + i, {"one": 60, "other": 40 + i}) for i in range(6)]
    taken = [(9000, {"one": 8000, "other": 1000}), (1, {"one": 1, "other": 0}), *usual]

    found = middle_half(taken, [1, 100, 102, 102, 103, 103, 103, 7000])

    assert found.total_ns == pytest.approx(102.5)
    assert found.explained == pytest.approx(1)
    assert found.repeats == 8


def test_what_the_stages_do_not_explain_is_seen():
    found = Breakdown(9, 200.0, {"one": 100.0, "other": 60.0})

    lines = report.breakdown_lines(Job(1024), found)

    assert found.explained == pytest.approx(0.8)
    assert any("sum of the stages" in line and "80.0%" in line for line in lines)


# ---- rows and the machine


@pytest.mark.parametrize(
    ("table", "what", "job", "target"),
    [
        ("random", "rdma_kv", Job(1024), 80),
        ("random", "rdma_kv", Job(256 * 1024), 360),
        ("random", "nixl", Job(1024), None),
        ("contiguous", "rdma_kv", Job(1024, contiguous=True), None),
        ("random", "rdma_kv", Job(2048), None),
    ],
)
def test_targets_stand_beside_our_random_rows_alone(table, what, job, target):
    row = Row.of_job(table, what, "cuda_ipc", job, Times(9, 100.0, 120.0), 400.0)

    assert row.target_gb_per_s == target
    assert row.gb_per_s == pytest.approx(job.bytes / 100e3)
    assert row.of_limit == pytest.approx(row.gb_per_s / 400)
    assert len(row.line()) == len(report.HEADINGS)


MATRIX = """\
\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV18\t0-31\t0
GPU1\tNV18\t X \t0-31\t0

Legend:
"""


@pytest.mark.parametrize(
    ("matrix", "source", "target", "link"),
    [
        (MATRIX, 0, 1, "NV18"),
        (MATRIX, 1, 0, "NV18"),
        (MATRIX, 1, 1, "the same GPU"),
        (MATRIX, 0, 5, "link unknown"),
        ("", 0, 1, "link unknown"),
    ],
)
def test_the_link_between_two_gpus_is_read_from_the_matrix(matrix, source, target, link):
    assert link_between(matrix, source, target) == link
