"""Sides in processes that start in milliseconds, so that hundreds of them can be killed."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import pytest

from support.cache import Shape
from support.patience import scaled
from support.side import Side

ANSWER_WITHIN_S = 60.0


def _serve(pipe: Connection, role: str, shape: Shape, more: dict[str, Any]) -> None:
    side = Side(role, shape, **more)
    pipe.send((True, list(side.address)))
    while True:
        try:
            method, args, kwargs = pipe.recv()
        except EOFError:
            side.close()
            return
        try:
            pipe.send((True, getattr(side, method)(*args, **kwargs)))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    """What everybody is forked from; it looks for what it imports in the environment only."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.forked_side"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
        forkserver.ensure_running()
    return context


class ForkedSide:
    """A `support.side.Side` in a process of its own, forked from one that has imported everything.

    That one never makes a communicator: what is forked from it is as good as freshly started.
    """

    def __init__(self, role: str, shape: Shape, **more: Any) -> None:
        context = _context()
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, role, shape, more), daemon=True)
        self.process.start()
        theirs.close()
        self.shape = shape
        self.seed = more.get("seed", 0)
        self.address: tuple[str, ...] = tuple(self._answer())

    def __enter__(self) -> ForkedSide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Lets it end by itself, unless it was killed."""
        self._pipe.close()
        self.process.join(scaled(20))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError("a forked side did not end")
        self.process.close()

    def kill(self) -> None:
        """As a crash does it: no goodbye."""
        self.process.kill()
        self.process.join()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Any method of Side."""
        self._pipe.send((method, args, kwargs))
        return self._answer()

    def _answer(self) -> Any:
        assert self._pipe.poll(scaled(ANSWER_WITHIN_S)), "a forked side does not answer"
        is_fine, answer = self._pipe.recv()
        if not is_fine:
            raise RuntimeError(answer)
        return answer


@contextmanager
def stopped(*sides: ForkedSide) -> Iterator[None]:
    """Their processes stand still meanwhile."""
    for side in sides:
        assert side.process.pid
        os.kill(side.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for side in sides:
            os.kill(side.process.pid, signal.SIGCONT)
