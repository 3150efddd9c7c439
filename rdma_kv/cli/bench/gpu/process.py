"""A child process with one object, whose methods the parent calls; each call has a deadline.

What hangs or crashes there costs the row that it was asked for, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from rdma_kv.cli.bench.child_process import Child
from rdma_kv.cli.bench.pair import BenchError

END_S = 10.0
START_S = 120.0  # Python, torch and CUDA from a cold disk


class Remote:
    """An object in a process of its own."""

    def __init__(
        self, name: str, make: Callable[..., object], *args: object, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self._child = Child(name, _serve, make, args, dict(env))

    def call(self, limit_s: float, method: str, *args: object) -> Any:
        """Raises BenchError with what the method raised, or how its process ended."""
        self._child.send(method, args)
        return self._answer(limit_s, method)

    def await_start(self, limit_s: float) -> None:
        self._answer(limit_s, "start")

    def pause(self) -> None:
        """Some engines spin for ever: they shall not while another is measured."""
        self._child.pause()

    def resume(self) -> None:
        self._child.resume()

    def end(self) -> None:
        """Within seconds, even when a driver does not let go of its process."""
        if self._child.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)
            self._child.join(END_S)
        self._child.pipe.close()

    def _answer(self, limit_s: float, method: str) -> Any:
        try:
            if not self._child.pipe.poll(limit_s):
                raise BenchError(f"{self.name}: no answer to {method} within {limit_s:.0f} s")
            has_worked, answer = self._child.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._child.join(5)
            status = self._child.exit_status
            raise BenchError(f"{self.name}: ended during {method}, {_ending(status)}") from None
        if not has_worked:
            raise BenchError(f"{self.name}: {method}: {answer}")
        return answer


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"status {status}"


def _serve(
    pipe: Connection, make: Callable[..., object], args: tuple[Any, ...], env: dict[str, str]
) -> None:
    os.environ.update(env)
    target = _answer(pipe, lambda: make(*args))
    while target is not None:
        method, arguments = pipe.recv()
        _answer(pipe, partial(getattr(target, method), *arguments), tell=True)


def _answer(pipe: Connection, call: Callable[[], Any], tell: bool = False) -> Any:
    """Sends the outcome, or just that it went well."""
    try:
        outcome = call()
    except Exception as error:  # of any library, in words: the parent has the table to go on with
        first_line = (str(error).strip().splitlines() or [""])[0]
        pipe.send((False, f"{type(error).__name__}: {first_line}"))
        return None
    pipe.send((True, outcome if tell else None))
    return outcome
