"""The two processes of one engine: started when first needed, and anew after one has failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.bench.work import Times

from .place import Place
from .process import START_S, Remote
from .settings import Budget
from .work import Job


@dataclass(frozen=True)
class Engine:
    """How an engine is started. Its sides are found by name: the parent imports no torch."""

    name: str
    module: str
    target: str
    initiator: str
    env: Mapping[str, str] = field(default_factory=dict)
    missing: Callable[[], str | None] = lambda: None


class Crew:
    """Target and initiator. Every question has a deadline; BenchError ends both processes."""

    def __init__(
        self, engine: Engine, here: Place, there: Place, budget: Budget, row_limit_s: float
    ) -> None:
        self._engine = engine
        self._places = (here, there)
        self._budget = budget
        self._row_limit_s = row_limit_s
        self._sides: tuple[Remote, Remote] | None = None

    @contextmanager
    def job(self, job: Job) -> Iterator[Remote]:
        """The initiator, connected; the job has been done once, and every byte was checked."""
        limit_s = self._budget.limit_s
        try:
            initiator, target = self._started()
            for side in (initiator, target):
                side.resume()
            address = target.call(limit_s(self._row_limit_s), "open", job)
            initiator.call(limit_s(self._row_limit_s), "open", job, address)
            initiator.call(limit_s(self._row_limit_s), "write")
            if wrong := target.call(limit_s(self._row_limit_s), "wrong", job):
                raise BenchError(f"WRONG BYTES arrived, first in {wrong}; trust nothing it did")
            yield initiator
            # The exporter of memory frees it last.
            initiator.call(limit_s(self._row_limit_s), "release")
            target.call(limit_s(self._row_limit_s), "release")
            for side in (initiator, target):
                side.pause()
        except BaseException:
            self.end()
            raise

    def times(self, job: Job, seconds: float) -> tuple[Times, str]:
        """And the path that the job took, where the engine tells."""
        with self.job(job) as initiator:
            path = ""
            if self._engine.name == "rdma_kv":
                path = initiator.call(self._budget.limit_s(self._row_limit_s), "path")
            limit_s = self._budget.limit_s(self._row_limit_s + seconds)
            times: Times = initiator.call(limit_s, "measure", seconds)
            return times, path

    def end(self) -> None:
        sides, self._sides = self._sides, None
        for side in sides or ():
            with contextlib.suppress(OSError):
                side.end()

    def _started(self) -> tuple[Remote, Remote]:
        if self._sides is None:
            here, there = self._places
            self._budget.limit_s(START_S)  # before anything is started in vain
            self._sides = (
                self._remote("initiator", self._engine.initiator, here),
                self._remote("target", self._engine.target, there),
            )
            for side in self._sides:
                side.await_start(self._budget.limit_s(START_S))
        return self._sides

    def _remote(self, role: str, cls: str, place: Place) -> Remote:
        engine = self._engine
        return Remote(
            f"{engine.name}'s {role}", make_side, engine.module, cls, place, env=engine.env
        )


def make_side(module: str, cls: str, place: Place) -> object:
    """In the child: only there torch, CUDA and the engine are imported."""
    import importlib

    return getattr(importlib.import_module(module), cls)(place)
