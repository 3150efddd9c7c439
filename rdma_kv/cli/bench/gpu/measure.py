"""All measurements of a run, in order. What fails costs its own row, and says why."""

from __future__ import annotations

from typing import Protocol

from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.bench.work import Times

from . import mooncake, nixl
from .breakdown import Breakdown
from .crew import Crew, Engine, make_side
from .place import Place
from .process import START_S, Remote
from .report import Row
from .settings import Budget, Settings
from .setup_cost import SetupCost, measure_setup
from .work import Job

_HERE = __package__
OURS = Engine("rdma_kv", f"{_HERE}.ours", "OurTarget", "OurInitiator")
NIXL = Engine(
    "nixl", f"{_HERE}.nixl_sides", "NixlTarget", "NixlInitiator", nixl.ENVIRONMENT, nixl.missing
)
MOONCAKE = Engine(
    "mooncake",
    f"{_HERE}.mooncake_sides",
    "MooncakeTarget",
    "MooncakeInitiator",
    mooncake.NVLINK,
    mooncake.missing,
)
MOONCAKE_TCP = Engine(
    "mooncake tcp",
    f"{_HERE}.mooncake_sides",
    "MooncakeTarget",
    "MooncakeInitiator",
    mooncake.TCP,
    mooncake.missing,
)
MOST_FAILURES = 2  # in a row: then another engine is asked no more, and costs no more time
PEERS = {"nixl": NIXL, "mooncake": MOONCAKE}


class Report(Protocol):
    """Who hears of everything, as it comes."""

    def table(self, name: str) -> None: ...
    def row(self, row: Row) -> None: ...
    def setup(self, cost: SetupCost) -> None: ...
    def breakdown(self, job: Job, found: Breakdown) -> None: ...
    def skipped(self, what: str, why: str) -> None: ...
    def progress(self, text: str) -> None: ...


class Bench:
    """Its processes live from their first job to the end: starting them costs seconds each."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._budget = Budget(settings.budget_s)
        self._crews: dict[tuple[str, str], Crew] = {}
        self._failures: dict[str, int] = {}  # of each engine, in a row
        self._limit: float | None = None

    def run(self) -> None:
        settings = self._settings
        try:
            bulk = self._bulk()
            for table in ("random", "contiguous", "model"):
                if table in settings.tables:
                    self._report.table(table)
                    if bulk:
                        self._report.row(Row.of_bulk(table, settings.bulk_bytes, bulk))
                    for job in jobs_of(table, settings):
                        self._alternate(table, job)
            if "staged" in settings.tables:
                self._staged()
            if settings.breakdown:
                self._breakdown()
            if "setup" in settings.tables:
                self._setup()
        finally:
            for crew in self._crews.values():
                crew.end()

    # ---- tables

    def _bulk(self) -> Times | None:
        """The limit. Without it there are tables all the same, but no ratios.

        Raises BenchError when its process does not even start: no other would, either.
        """
        settings = self._settings
        here, there = self._places(settings.device)
        self._report.progress("bulk copy")
        remote = Remote("bulk copy", make_bulk, here, there, settings.bulk_bytes, env={})
        try:
            remote.await_start(self._budget.limit_s(START_S))
            try:
                limit_s = self._budget.limit_s(settings.row_limit_s + settings.seconds)
                times: Times = remote.call(limit_s, "measure", settings.seconds)
            except BenchError as error:
                self._report.skipped("bulk copy", str(error))
                return None
        finally:
            remote.end()
        self._limit = times.gb_per_s(settings.bulk_bytes)
        return times

    def _alternate(self, table: str, job: Job) -> None:
        """The engines one after the other on the same job."""
        for engine in (OURS, *(PEERS[name] for name in self._settings.peers)):
            self._measure(table, engine.name, engine, self._settings.device, job, self._limit)

    def _staged(self) -> None:
        settings = self._settings
        self._report.table("staged")
        for job in jobs_of("staged", settings):
            host = self._measure("staged", "rdma_kv host", OURS, "cpu", job, None)
            limit = host.gb_per_s if host else None
            self._measure("staged", "rdma_kv gpu", OURS, settings.device, job, limit)
            if "mooncake" in settings.peers:
                name = MOONCAKE_TCP.name
                self._measure("staged", name, MOONCAKE_TCP, settings.device, job, limit)

    def _breakdown(self) -> None:
        job = Job(block_bytes=min(self._settings.sizes))
        self._report.progress(f"breakdown, {job}")
        try:
            with self._crew(OURS, self._settings.device).job(job) as initiator:
                seconds = self._settings.seconds
                limit_s = self._budget.limit_s(self._settings.row_limit_s + seconds)
                self._report.breakdown(job, initiator.call(limit_s, "breakdown", seconds))
        except BenchError as error:
            self._report.skipped("breakdown", str(error))

    def _setup(self) -> None:
        """In fresh processes, after all others have ended: they would be in the memory."""
        for crew in self._crews.values():
            crew.end()
        self._report.progress("set-up")
        module = f"{_HERE}.setup_sides"
        here, there = self._places(self._settings.device)
        sides: list[Remote] = []
        try:
            for name, place in (("Prefill", here), ("Decodes", there)):
                sides.append(Remote(f"set-up's {name}", make_side, module, name, place, env={}))
            for side in sides:
                side.await_start(self._budget.limit_s(START_S))
            limit_s = self._budget.limit_s(self._settings.row_limit_s)
            self._report.setup(measure_setup(sides[0], sides[1], limit_s))
        except BenchError as error:
            self._report.skipped("set-up", str(error))
        finally:
            for side in sides:
                side.end()

    # ---- one row

    def _measure(
        self, table: str, what: str, engine: Engine, device: str, job: Job, limit: float | None
    ) -> Row | None:
        if self._failures.get(engine.name, 0) >= MOST_FAILURES and engine is not OURS:
            return None
        if why := engine.missing():
            self._failures[engine.name] = MOST_FAILURES
            self._report.skipped(engine.name, why)
            return None
        self._report.progress(f"{what}, {job}")
        try:
            times, path = self._crew(engine, device).times(job, self._settings.seconds)
            self._failures[engine.name] = 0
        except BenchError as error:
            self._failures[engine.name] = self._failures.get(engine.name, 0) + 1
            self._report.skipped(f"{what}, {job}", str(error))
            return None
        row = Row.of_job(table, what, path, job, times, limit)
        if limit is None and what == "rdma_kv host":
            row = Row.of_job(table, what, path, job, times, row.gb_per_s)
        self._report.row(row)
        return row

    def _crew(self, engine: Engine, device: str) -> Crew:
        key = engine.name, device
        if key not in self._crews:
            places = self._places(device)
            limit_s = self._settings.row_limit_s
            self._crews[key] = Crew(engine, *places, self._budget, limit_s)
        return self._crews[key]

    def _places(self, device: str) -> tuple[Place, Place]:
        settings = self._settings
        arena = largest_pool(settings)
        return (
            Place(device, settings.source_gpu, arena),
            Place(device, settings.target_gpu, arena),
        )


def jobs_of(table: str, settings: Settings) -> list[Job]:
    if table == "model":
        return [
            Job(
                settings.model_block_bytes,
                layers=settings.model_layers,
                has_values=True,
                pool_blocks=settings.model_blocks,
            )
        ]
    if table == "contiguous":
        return [Job(size, contiguous=True) for size in settings.sizes]
    transport = "tcp" if table == "staged" else "auto"
    return [Job(size, transport=transport) for size in settings.sizes]


def largest_pool(settings: Settings) -> int:
    tables = [name for name in ("random", "model") if name in settings.tables] or ["random"]
    return max(job.pool_bytes for table in tables for job in jobs_of(table, settings))


def make_bulk(here: Place, there: Place, count: int) -> object:
    """In the child: only there torch is imported."""
    from .limits import BulkCopy

    return BulkCopy(here, there, count)
