"""Where the time of one small write goes. A stage is a name and nanoseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rdma_kv import Transfer
from rdma_kv.cli.bench.work import LEAST_REPEATS, MOST_REPEATS, WARM_UP

# Both from std::chrono::steady_clock, which on Linux is the clock of time.perf_counter_ns().
BEFORE, AFTER = "Python, until the core has it", "Python, after the core has ended it"


@dataclass(frozen=True)
class Breakdown:
    """Medians, each of its own: their sum need not be the median of the sums."""

    repeats: int
    total_ns: float
    stages_ns: dict[str, float]

    @property
    def explained(self) -> float:
        """The part of the total that the stages add up to."""
        return sum(self.stages_ns.values()) / self.total_ns if self.total_ns else 0.0


def core_stages(raw: Mapping[str, Any]) -> dict[str, int]:
    """What the core did between its first stamp and its last, from a transfer's raw figures.

    The transport may tell more: then `stages_ns` maps plan, table, launch, kernel, completion and
    notice to nanoseconds, in their order, and stands for the time from its first byte to its end.
    """
    stages = {"queued": raw["started_ns"] - raw["submitted_ns"]}
    return stages | dict(raw.get("stages_ns") or {"moving": raw["finished_ns"] - raw["started_ns"]})


def all_stages(called_ns: int, returned_ns: int, raw: Mapping[str, Any]) -> dict[str, int]:
    return {
        BEFORE: raw["submitted_ns"] - called_ns,
        **core_stages(raw),
        AFTER: returned_ns - raw["finished_ns"],
    }


def take_breakdown(write: Callable[[], Transfer], seconds: float) -> Breakdown:
    taken: list[dict[str, int]] = []
    totals: list[int] = []
    until_ns = 0
    for turn in range(WARM_UP + MOST_REPEATS):
        called_ns = time.perf_counter_ns()
        transfer = write()
        transfer.wait()
        returned_ns = time.perf_counter_ns()
        if turn < WARM_UP:
            until_ns = returned_ns + int(seconds * 1e9)
            continue
        totals.append(returned_ns - called_ns)
        taken.append(all_stages(called_ns, returned_ns, transfer._core.stats))
        if len(totals) >= LEAST_REPEATS and returned_ns > until_ns:
            break
    stages = {name: statistics.median(one[name] for one in taken) for name in taken[0]}
    return Breakdown(len(totals), statistics.median(totals), stages)
