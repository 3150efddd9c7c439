"""Peer processes by the dozen: forked where everything is imported, instead of started anew."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import TextIO

from support.patience import scaled


class Child:
    """A forked peer process, as `subprocess.Popen` shows one."""

    def __init__(self, stdin: TextIO, stdout: TextIO, status: TextIO) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._status = status
        self.pid = int(status.readline())
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked peer process", timeout or 0)
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode


class Nursery:
    """Forks peer processes. They end with their standard input, so they may outlive it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.nursery_process"],
                stdin=theirs,
                env=peer_environment(),
            )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._requests.close()
        self._process.wait(scaled(20))

    def fork(self) -> Child:
        commands, stdin = os.pipe()
        stdout, answers = os.pipe()
        status, tell = os.pipe()
        socket.send_fds(self._requests, [b"f"], [commands, answers, tell])
        for theirs in (commands, answers, tell):
            os.close(theirs)
        # Unbuffered reading: select() must see what is left.
        return Child(os.fdopen(stdin, "w"), os.fdopen(stdout), os.fdopen(status, buffering=1))


def peer_environment() -> dict[str, str]:
    """This process's, without settings of the product, and with its import path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHE_")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return environment
