"""The phases: calm, sick, calm, sick; each sick one is compared with the calm one before it."""

from __future__ import annotations

import os
import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from rdma_kv.cli.bench.child_process import Child
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.bench.work import Bytes
from rdma_kv.cli.local import HOST

from . import decode
from .healthy import MODES, HealthyWrites
from .settings import BLOCK_BYTES, LEAD_S, POOL_BLOCKS, Settings
from .sick import Sick

Times = list[float]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Series:
    """Of one kind of sickness and one mode: the times of all its phases, and of the calm ones."""

    calm_us: list[list[float]] = field(default_factory=list)
    sick_us: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Sick over calm: the median of the rounds, so that one noisy phase decides nothing.

    `low` to `high`: where it lies in 90 % of the draws when the rounds are drawn anew, with
    repeats.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[Times, Times]], percent: float) -> Ratio:
        rounds = [_percentile(ill, percent) / _percentile(calm, percent) for calm, ill in pairs]
        draws = np.random.default_rng(1).choice(rounds, (1000, len(rounds)))
        low, high = np.percentile(np.median(draws, axis=1), (5, 95))
        return cls(statistics.median(rounds), float(low), float(high))


def quiet_ratio(calm: Sequence[Times], ill: Sequence[Times]) -> float:
    """Of the p99 of the quieter quarter: others disturb some phases, a fault of ours each."""
    quiet = [np.percentile([_percentile(t, 99) for t in phases], 25) for phases in (calm, ill)]
    return float(quiet[1] / quiet[0])


@dataclass(frozen=True)
class Row:
    """One kind of sickness over one transport, in one mode."""

    transport: str
    kind: str
    mode: str
    writes: int
    calm_p50_us: float
    calm_p99_us: float
    sick_p50_us: float
    sick_p99_us: float
    p50_ratio: Ratio
    p99_ratio: Ratio
    p99_quiet_ratio: float
    prefill_cores: float
    decode_cores: float
    flooder_cores: float
    blows_per_s: float  # of the flooder, or attempts on the sick peer

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class _Cost:
    """Processor time of one kind's phases, and how long they were."""

    seconds: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    flooder_s: float = 0.0
    blows: float = 0.0


def measure(settings: Settings, transport: str, say: Callable[[str], None]) -> Iterator[Row]:
    """All kinds over one transport; every round has each of them once, with a calm phase before."""
    pool = np.random.default_rng(9).integers(0, 256, (POOL_BLOCKS, BLOCK_BYTES), np.uint8)
    series: dict[tuple[str, str], Series] = defaultdict(Series)
    costs: dict[str, _Cost] = defaultdict(_Cost)
    with ExitStack() as stack:
        comm = stack.enter_context(decode.communicator("prefill", pool, transport))
        children = [Child(f"decode {i}", decode.run, transport) for i in range(settings.healthy)]
        for child in children:
            stack.callback(child.kill)
        ports = [str(child.pipe.recv()) for child in children]
        for port in ports:
            comm.connect(HOST, port)
        writes = HealthyWrites(comm, ports, settings.rate)
        sick = Sick(settings, comm, transport, children, ports, writes)
        stack.callback(sick.close)
        writes.time(settings.phase_s)  # warm-up
        for number in range(settings.rounds):
            say(f"{transport}: round {number + 1} of {settings.rounds}")
            for kind in settings.kinds:
                calm = writes.time(settings.phase_s)
                with sick.during(kind):
                    time.sleep(LEAD_S)
                    with _counted(costs[kind], children, sick):
                        ill = writes.time(settings.phase_s)
                for mode in MODES:
                    series[kind, mode].calm_us.append(calm[mode])
                    series[kind, mode].sick_us.append(ill[mode])
                time.sleep(LEAD_S)
        _check_bytes(writes, pool, children)
    for kind in settings.kinds:
        for mode in MODES:
            yield _row(transport, kind, mode, series[kind, mode], costs[kind])


def _row(transport: str, kind: str, mode: str, series: Series, cost: _Cost) -> Row:
    calm, ill = (list(chain(*phases)) for phases in (series.calm_us, series.sick_us))
    pairs = list(zip(series.calm_us, series.sick_us, strict=True))
    return Row(
        transport,
        kind,
        mode,
        len(ill),
        _percentile(calm, 50),
        _percentile(calm, 99),
        _percentile(ill, 50),
        _percentile(ill, 99),
        Ratio.of(pairs, 50),
        Ratio.of(pairs, 99),
        quiet_ratio(series.calm_us, series.sick_us),
        cost.prefill_s / cost.seconds,
        cost.decode_s / cost.seconds,
        cost.flooder_s / cost.seconds,
        cost.blows / cost.seconds,
    )


def _percentile(times: Times, percent: float) -> float:
    return float(np.percentile(times, percent, method="higher"))


@contextmanager
def _counted(cost: _Cost, decodes: list[Child], sick: Sick) -> Iterator[None]:
    """Adds what the block costs whom."""

    def now() -> tuple[float, ...]:
        return (
            time.monotonic(),
            time.process_time(),
            sum(_cpu_s(child.pid) for child in decodes),
            _cpu_s(sick.flooder.pid) if sick.flooder else 0.0,
            sick.blows(),
        )

    before = now()
    yield
    spent = [b - a for a, b in zip(before, now(), strict=True)]
    cost.seconds += spent[0]
    cost.prefill_s += spent[1]
    cost.decode_s += spent[2]
    cost.flooder_s += spent[3]
    cost.blows += spent[4]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _check_bytes(writes: HealthyWrites, pool: Bytes, children: list[Child]) -> None:
    expected = np.zeros_like(pool)
    expected[writes.dst] = pool[writes.src]
    for child in children:
        child.send("checksum")
        if child.pipe.recv() != zlib.crc32(expected.tobytes()):
            raise BenchError(f"{child.name}: WRONG BYTES arrived; trust nothing it did")
