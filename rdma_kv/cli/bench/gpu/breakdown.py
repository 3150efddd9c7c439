"""Where the time of one small write goes. A stage is a name and nanoseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rdma_kv.cli.bench.work import LEAST_REPEATS, MOST_REPEATS, WARM_UP

# Both clocks are CLOCK_MONOTONIC: std::chrono::steady_clock and time.perf_counter_ns().
BEFORE, AFTER = "Python, until the core has it", "Python, after the core has ended it"

# What the core calls the end of a stage, and what the stage was spent on.
STAGES = {
    "begun": "head start: the driver's call",
    "planned": "plan: ids checked and joined",
    "submitted": "queue: the peer's lock, the transfer's object",
    "tabled": "table of blocks, into page-locked memory",
    "launched": "launch, or the word to go",
    "landed": "kernel, and noticing that it is done",
    "completed": "completion: the transfer is told, the waiter wakes",
}


@dataclass(frozen=True)
class Breakdown:
    """Means over the middle half of the writes, by their total: unlike medians of each stage these
    add up, and unlike means over all a few slow writes do not show.

    The total is that of plain calls, taken in turn with those whose stages were looked at."""

    repeats: int
    total_ns: float
    stages_ns: dict[str, float]

    @property
    def explained(self) -> float:
        """The part of the total that the stages add up to."""
        return sum(self.stages_ns.values()) / self.total_ns if self.total_ns else 0.0


def all_stages(called_ns: int, returned_ns: int, moments: Mapping[str, int]) -> dict[str, int]:
    """From `moments`: when the core was entered, and nanoseconds from then to each stage's end.

    A transport that has no table and no launch leaves them 0; then they are not in the result.
    """
    stages = {BEFORE: moments["entered"] - called_ns}
    last = 0
    for moment, name in STAGES.items():
        if moments[moment]:
            stages[name] = moments[moment] - last
            last = moments[moment]
    stages[AFTER] = returned_ns - moments["entered"] - last
    return stages


def take_breakdown(
    traced: Callable[[], Mapping[str, int]], plain: Callable[[], object], seconds: float
) -> Breakdown:
    """Both do one write to completion; `traced` returns the core's moments."""
    taken: list[tuple[int, dict[str, int]]] = []
    plain_ns: list[int] = []
    until_ns = 0
    for turn in range(WARM_UP + MOST_REPEATS):
        begin_ns = time.perf_counter_ns()
        plain()
        called_ns = time.perf_counter_ns()
        moments = traced()
        returned_ns = time.perf_counter_ns()
        if turn < WARM_UP:
            until_ns = returned_ns + int(seconds * 1e9)
            continue
        plain_ns.append(called_ns - begin_ns)
        taken.append((returned_ns - called_ns, all_stages(called_ns, returned_ns, moments)))
        if len(taken) >= LEAST_REPEATS and returned_ns > until_ns:
            break
    return middle_half(taken, plain_ns)


def middle_half(taken: list[tuple[int, dict[str, int]]], plain_ns: list[int]) -> Breakdown:
    """Of (total, stages) of each write that was looked at, and of each that was not."""
    quarter = len(taken) // 4
    middle = sorted(taken, key=lambda one: one[0])[quarter : len(taken) - quarter]
    names = middle[0][1]
    stages = {name: statistics.fmean(one[name] for _, one in middle) for name in names}
    totals = sorted(plain_ns)[quarter : len(plain_ns) - quarter]
    return Breakdown(len(taken), statistics.fmean(totals), stages)
