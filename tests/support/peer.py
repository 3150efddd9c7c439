"""The test's end of the peer process."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import rdma_kv
from support.cache import Shape
from support.nursery import Child, peer_environment
from support.patience import eventually, scaled

ANSWER_WITHIN_S = 60.0


class PeerProcess:
    """A real second process with an interpreter of its own. Any thread may call it."""

    def __init__(self, process: Child | None = None) -> None:
        """Starts one, unless it is given one that was forked."""
        self._process: Child | subprocess.Popen[str] = process or subprocess.Popen(
            [sys.executable, "-m", "support.peer_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=peer_environment(),
        )
        self._calls = itertools.count()
        self._sides = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, role: str, shape: Shape, settings: dict[str, str], **more: Any) -> RemoteSide:
        number = next(self._sides)
        address = self.start(
            None, "open", number, role, dataclasses.asdict(shape), settings=settings, **more
        ).result(scaled(ANSWER_WITHIN_S))
        return RemoteSide(self, number, shape, more.get("seed", 0), tuple(address))

    def forget(self, number: int) -> None:
        self.start(None, "forget", number).result(scaled(ANSWER_WITHIN_S))

    def start(self, side: int | None, method: str, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        call = next(self._calls)
        command = {"call": call, "side": side, "method": method, "args": args, "kwargs": kwargs}
        with self._lock:
            self._waiting[call] = future
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._waiting.pop(answer["call"])
            if "error" in answer:
                future.set_exception(same_error(*answer["error"]))
            else:
                future.set_result(answer["result"])
        with self._lock:
            for future in self._waiting.values():
                future.set_exception(EOFError("the peer process ended"))
            self._waiting.clear()

    def kill(self) -> None:
        """As a crash does it: no goodbye."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Returns once all of it stands still: the signal takes effect when a thread meets it."""
        self._process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        eventually(lambda: all(map(_is_stopped, threads.iterdir())), 10, "it has stopped")

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> int:
        """Lets it end by itself; returns its exit status."""
        assert self._process.stdin is not None
        self.resume()
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self._process.stdin.close()
        try:
            return self._process.wait(scaled(20))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._reader.join(scaled(5))


class RemoteSide:
    """A `support.side.Side` in the peer process: the same methods, the same errors."""

    def __init__(
        self, process: PeerProcess, number: int, shape: Shape, seed: int, address: tuple[str, ...]
    ) -> None:
        self.process = process
        self._number = number
        self.shape = shape
        self.seed = seed
        self.address = address

    def forget(self) -> None:
        """Closes it and drops the last reference to it, as `del` does in one process."""
        self.process.forget(self._number)

    def start(self, method: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begins a call and returns at once."""
        return self.process.start(self._number, method, *args, **kwargs)

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.start(method, *args, **kwargs).result(scaled(ANSWER_WITHIN_S))

        return call


def _is_stopped(thread: Path) -> bool:
    """The state follows the name, which ends with the last parenthesis."""
    return (thread / "stat").read_text().rpartition(") ")[2].startswith("T")


def same_error(name: str, message: str) -> Exception:
    """The peer's exception, as the class that it was there."""
    kind = getattr(rdma_kv, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind(message)
    return RuntimeError(f"{name}: {message}")
