"""What a process holds, and whether it grows."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LEAST_CHECKPOINTS = 4
_RSS_SLACK = 0.05
_RSS_SLACK_KIB = 8 * 1024


@dataclass(frozen=True)
class Resources:
    """Of one process while nothing happens; `anon_kib` is its memory but for mapped files."""

    fds: int
    threads: int
    anon_kib: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        process = Path("/proc") / str(pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        fds = sum(1 for _ in (process / "fd").iterdir())
        return cls(fds, int(status["Threads"]), int(status["RssAnon"].split()[0]))


@dataclass(frozen=True)
class Checkpoint:
    """One moment of calm: everything is connected, and nobody writes."""

    at_s: float
    prefill_fds: int
    prefill_threads: int
    prefill_anon_kib: int
    decode_fds: int
    decode_threads: int
    decode_anon_kib: int
    memory_regions: int
    dev_shm_entries: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def memory_regions() -> int:
    """Of this whole machine; 0 where there is no RDMA."""
    if shutil.which("rdma") is None or not Path("/sys/class/infiniband").is_dir():
        return 0
    shown = subprocess.run(
        ["rdma", "-j", "res", "show", "mr"], capture_output=True, text=True, timeout=30
    )
    try:
        return len(json.loads(shown.stdout))
    except ValueError:
        return 0


def dev_shm_entries() -> int:
    try:
        return sum(1 for _ in Path("/dev/shm").iterdir())
    except OSError:
        return 0


def growth(checkpoints: Sequence[Checkpoint]) -> list[str] | None:
    """What has grown from the first third to the last; None: too few checkpoints to tell.

    Counts must be equal: at a checkpoint everything is as it was at the one before. Memory may
    differ by what allocators keep.
    """
    if len(checkpoints) < LEAST_CHECKPOINTS:
        return None
    third = len(checkpoints) // 3 or 1
    grown = []
    for name in checkpoints[0].as_dict():
        if name == "at_s":
            continue
        first = statistics.median(getattr(c, name) for c in checkpoints[:third])
        last = statistics.median(getattr(c, name) for c in checkpoints[-third:])
        slack = max(first * _RSS_SLACK, _RSS_SLACK_KIB) if name.endswith("_kib") else 0
        if last > first + slack:
            grown.append(f"{name} grew from {first:g} to {last:g}")
    return grown
