"""`bench/isolation.py`: that it runs to its table, and what its ratios say. No figure is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rdma_kv.cli.bench.isolation.measure import Ratio, quiet_ratio
from rdma_kv.cli.bench.isolation.report import verdict
from rdma_kv.cli.bench.isolation.sick import KINDS
from support.patience import scaled

PROGRAM = Path(__file__).parents[2] / "bench" / "isolation.py"


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHE_")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(100),
    )


def test_every_sickness_is_measured_and_the_bytes_are_right(tmp_path):
    report = tmp_path / "isolation.json"

    ended = finished(
        "--transport=tcp", "--healthy=2", "--rounds=1", "--phase=0.5", f"--json={report}"
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads(report.read_text())["rows"]
    assert {(row["kind"], row["mode"]) for row in rows} == {
        (kind, mode) for kind in KINDS for mode in ("sync", "async")
    }
    assert all(row["writes"] > 0 for row in rows)
    blows = {row["kind"]: row["blows_per_s"] for row in rows}
    assert blows["nothing"] == 0
    assert min(blows["killed"], blows["control flood"], blows["data flood"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sick", "grumpy"], "--sick grumpy: allowed: nothing, burner, killed"),
        (["--rounds", "0"], "must be at least 1"),
        (["--transport", "teleport"], "KVCACHE_TRANSPORT=teleport: allowed: auto"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, words):
    ended = finished(*arguments)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stdout == ""


def phases(*slowest_us: float) -> list[list[float]]:
    """Of ten writes each, the slowest of which took so long."""
    return [[100.0] * 9 + [slowest] for slowest in slowest_us]


def test_one_noisy_phase_decides_nothing():
    calm, sick = phases(200, 200, 200, 200, 200), phases(200, 200, 9000, 200, 200)

    ratio = Ratio.of(list(zip(calm, sick, strict=True)), 99)

    assert ratio.median == 1
    assert verdict(ratio, 1.1) == "ok"


def test_a_stall_in_every_sick_phase_is_above_the_target():
    calm, sick = phases(200, 210, 190, 200, 9000), phases(300, 310, 290, 300, 320)

    ratio = Ratio.of(list(zip(calm, sick, strict=True)), 99)

    assert verdict(ratio, 1.1) in ("ABOVE", "unclear")
    assert ratio.median > 1.4
    assert quiet_ratio(calm, sick) > 1.4


def test_ratios_on_both_sides_of_the_target_are_unclear():
    calm, sick = phases(100, 100, 100, 100), phases(100, 100, 200, 200)

    assert verdict(Ratio.of(list(zip(calm, sick, strict=True)), 99), 1.1) == "unclear"
