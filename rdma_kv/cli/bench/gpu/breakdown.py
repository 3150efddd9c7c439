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
    """Means over the middle half of the writes, by their total: unlike medians of each stage these
    add up, and unlike means over all a few slow writes do not show."""

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
    taken: list[tuple[int, dict[str, int]]] = []
    until_ns = 0
    for turn in range(WARM_UP + MOST_REPEATS):
        called_ns = time.perf_counter_ns()
        transfer = write()
        transfer.wait()
        returned_ns = time.perf_counter_ns()
        if turn < WARM_UP:
            until_ns = returned_ns + int(seconds * 1e9)
            continue
        stages = all_stages(called_ns, returned_ns, transfer._core.stats)
        taken.append((returned_ns - called_ns, stages))
        if len(taken) >= LEAST_REPEATS and returned_ns > until_ns:
            break
    return middle_half(taken)


def middle_half(taken: list[tuple[int, dict[str, int]]]) -> Breakdown:
    """Of (total, stages) of each write."""
    quarter = len(taken) // 4
    middle = sorted(taken, key=lambda one: one[0])[quarter : len(taken) - quarter]
    names = middle[0][1]
    stages = {name: statistics.fmean(one[name] for _, one in middle) for name in names}
    return Breakdown(len(taken), statistics.fmean(total for total, _ in middle), stages)
