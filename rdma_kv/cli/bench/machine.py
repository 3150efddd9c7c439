"""The line without which a number is gossip."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from rdma_kv import __version__, _core


def machine_line() -> str:
    load = " ".join(f"{x:.2f}" for x in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    return (
        f"rdma_kv {__version__} ({_commit()}), {_cpu()}, {cores} cores, "
        f"{platform.system()} {platform.release()}, g++ {_core.features()['compiler']}, load {load}"
    )


def _commit() -> str:
    """Of the source tree that this file lies in; an installed wheel has none."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "commit unknown"
    return described.stdout.strip() or "commit unknown"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
