"""`bench/soak.py` in seconds instead of hours; above all, that it would notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.patience import scaled

PROGRAM = Path(__file__).parents[2] / "bench" / "soak.py"
SMALL = "--peers 2 --prefills 1 --threads 2 --blocks 192 --layers 2 --seed 7"


def start(*arguments: str, sabotage: str = "") -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHE_")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *SMALL.split(), *arguments],
        env={**environment, "RDMA_KV_SOAK_SABOTAGE": sabotage},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(*arguments: str, sabotage: str = "") -> tuple[int, str, str]:
    with start(*arguments, sabotage=sabotage) as program:
        said, warned = program.communicate(timeout=scaled(100))
    return program.returncode, said, warned


def test_writes_under_faults_are_right_to_the_byte(tmp_path):
    report = tmp_path / "soak.json"

    status, said, _ = finished(
        "--seconds=5", "--fault-every=0.3", "--checkpoint-every=2", f"--json={report}"
    )

    assert status == 0, said
    found = json.loads(report.read_text())
    assert found["failures"] == 0
    assert set(found["times"]) == {"cma", "tcp"}
    assert found["bytes_verified"] > found["bytes_written"] > 0
    assert found["notices_verified"] > 0
    assert sum(found["faults"].values()) > 0


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        ("notice", "although its notice is here"),
        ("late", "changed after its last write had ended"),
        ("guard", "outside of every block that may be written"),
    ],
)
def test_a_byte_spoilt_on_purpose_ends_it_with_status_1(sabotage, words):
    status, said, _ = finished("--seconds=3", "--no-faults", sabotage=sabotage)

    assert status == 1, said
    assert words in " ".join(said.split())


def test_a_writer_that_stands_still_ends_it_with_all_stacks():
    status, said, warned = finished("--seconds=60", "--hang=5", "--no-faults", sabotage="hang")

    assert status == 1, said
    assert "a writer has not come further" in said
    assert "in _step" in warned


def test_ctrl_c_ends_it_in_order_with_its_tables():
    with start("--seconds=600", "--no-faults") as program:
        assert program.stderr is not None
        for line in program.stderr:
            if "writes/s" in line and " 0.0 writes/s" not in line:
                break
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=scaled(60))

    assert program.returncode == 0, said
    assert "no corruption" in said
    assert "ended early by Ctrl-C" in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--load", "0"], "--load is the share"),
        (["--peers", "0"], "must be at least 1"),
        (["--blocks", "8"], "--blocks must be at least 48 for each writer"),
        (["--transport", "teleport"], "KVCACHE_TRANSPORT=teleport: allowed: auto"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, words):
    status, said, warned = finished(*arguments)

    assert status == 2
    assert words in warned
    assert said == ""
