"""A child process that cannot outlive its parent, and that tells its stacks when asked."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
# <malloc.h>: the arrays of the checks come and go, and must not hide or look like a leak.
_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES = -3, 256 * 1024
_M_ARENA_MAX, _ARENAS = -8, 2
_SPAWN = multiprocessing.get_context("spawn")  # fork would copy our threads' locks


class Child:
    """Start it from a thread that lives as long as it: the kernel watches that thread."""

    def __init__(self, name: str, target: Callable[..., None], *args: object) -> None:
        self.name = name
        self.is_stopped = False
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_run, args=(os.getpid(), theirs, target, args), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.is_alive()

    @property
    def exit_status(self) -> int | None:
        return self._process.exitcode

    def send(self, *message: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was killed
            self.pipe.send(message)

    def pause(self) -> None:
        self.is_stopped = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.is_stopped:
            os.kill(self.pid, signal.SIGCONT)
            self.is_stopped = False

    def show_stacks(self) -> None:
        """On the error output that all share."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def join(self, timeout_s: float) -> None:
        self._process.join(timeout_s)


def trim_memory() -> None:
    """What is free goes back to the system, so that what is left is in use."""
    gc.collect()
    _LIBC.malloc_trim(0)


def _run(parent: int, pipe: Connection, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    _LIBC.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    _LIBC.mallopt(_M_ARENA_MAX, _ARENAS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    logging.getLogger("rdma_kv").setLevel(logging.ERROR)  # faults cause many warnings
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    with contextlib.suppress(EOFError, BrokenPipeError):
        target(pipe, *args)
