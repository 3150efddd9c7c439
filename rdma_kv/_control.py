"""The control thread: one per communicator, for everything that is not a byte of a block.

It answers handshakes (decode), sends and answers heartbeats, and hands the core's log lines to
``logging``. It sleeps in one poll; without peers it sleeps for ever.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import zmq

from rdma_kv import _core, _logging

logger = logging.getLogger("rdma_kv")

MOST_HEARTBEAT_PERIOD_S = 1.0
# A peer is heard of so often before it counts as dead: rides out a stalled scheduler.
_HEARTBEATS_PER_TIMEOUT = 5
# What a goodbye gets to leave the socket when that is closed.
GOODBYE_LINGER_MS = 200

Source = Any  # a ZeroMQ socket or a file descriptor


def heartbeat_period_s(peer_timeout_s: float) -> float:
    """How often a peer that gives up after so long is to be told that this side lives."""
    return min(MOST_HEARTBEAT_PERIOD_S, peer_timeout_s / _HEARTBEATS_PER_TIMEOUT)


class Ticking(Protocol):
    """Something that wants to be called about once per `period_s`, constant while it ticks."""

    period_s: float

    def tick(self, now: float, late_s: float) -> None:
        """Late: how long this thread overslept; a peer is not to blame for that time."""


class ControlLoop:
    """One thread that polls sockets and descriptors. Holds no reference to the communicator."""

    def __init__(self, name: str) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._tasks: deque[Callable[[], None]] = deque()
        self._poller = zmq.Poller()
        self._handlers: dict[Source, Callable[[], None]] = {}
        self._ticking: dict[Ticking, float] = {}  # and when each is due
        self._is_stopping = False
        self._is_ended = False
        self._lock = threading.Lock()  # guards _is_ended, and with it the life of _wake
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.watch(self._wake, self._drain_wake)
        self.watch(_core.log_fd(), _logging.drain_core)

    def start(self) -> None:
        """Starts the thread; what was watched before is polled from now on."""
        self._thread.start()

    def discard(self) -> None:
        """Instead of start(), when something else could not be made."""
        os.close(self._wake)

    # ---- any thread

    def post(self, task: Callable[[], None]) -> bool:
        """Runs a task on the thread, soon; False when the thread has ended."""
        with self._lock:
            if self._is_ended:
                return False
            self._tasks.append(task)
            os.eventfd_write(self._wake, 1)
            return True

    def run(self, task: Callable[[], None], timeout_s: float) -> bool:
        """Runs a task on the thread and waits for its end; False when it did not come in time."""
        if self._is_here():
            task()
            return True
        ended = threading.Event()

        def wrapped() -> None:
            try:
                task()
            finally:
                ended.set()

        return self.post(wrapped) and ended.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the tasks posted so far; True when it ended. Idempotent."""
        self.post(self._set_stopping)
        if self._is_here():
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- the thread only (or before start)

    def watch(self, source: Source, handler: Callable[[], None]) -> None:
        """Calls the handler while the source is readable."""
        self._poller.register(source, zmq.POLLIN)
        self._handlers[source] = handler

    def forget(self, source: Source) -> None:
        """Before the source is closed. Unknown ones are ignored."""
        if self._handlers.pop(source, None) is not None:
            self._poller.unregister(source)

    def start_ticking(self, what: Ticking) -> None:
        """Calls `what.tick` every `what.period_s`."""
        self._ticking[what] = time.monotonic() + what.period_s

    def stop_ticking(self, what: Ticking) -> None:
        """Unknown ones are ignored."""
        self._ticking.pop(what, None)

    # ---- private

    def _is_here(self) -> bool:
        """The garbage collector may end a communicator on any thread, this one too."""
        return threading.current_thread() is self._thread

    def _set_stopping(self) -> None:
        self._is_stopping = True

    def _drain_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return
        self._run_tasks()

    def _run_tasks(self) -> None:
        while self._tasks:
            self._guard(self._tasks.popleft())

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                ready = self._poller.poll(self._wait_ms())
                for source, _ in ready:
                    # A handler of this round may have closed a source that comes later in it.
                    if handler := self._handlers.get(source):
                        self._guard(handler)
                self._tick_when_due()
        except zmq.ContextTerminated:
            pass
        finally:
            with self._lock:
                self._is_ended = True
                os.close(self._wake)
            self._run_tasks()  # sockets may wait to be closed
            _logging.drain_core()

    def _wait_ms(self) -> int | None:
        if not self._ticking:
            return None
        due = min(self._ticking.values())
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _tick_when_due(self) -> None:
        now = time.monotonic()
        for what, due in list(self._ticking.items()):
            if now < due or what not in self._ticking:
                continue
            self._ticking[what] = now + what.period_s
            self._guard(lambda what=what, due=due: what.tick(now, now - due))  # type: ignore[misc]

    @staticmethod
    def _guard(task: Callable[[], None]) -> None:
        """One broken task must not end the heartbeats of every peer."""
        try:
            task()
        except zmq.ContextTerminated:
            raise
        except Exception:
            logger.exception("the control thread goes on after an error")
