"""Lets writers through, or parks them all between two steps. Closed at first."""

from __future__ import annotations

import threading
import time


class Gate:
    def __init__(self, walkers: int) -> None:
        self._changed = threading.Condition()
        self._is_open = False
        self._is_ending = False
        self._walkers = walkers
        self._parked = 0

    def pass_(self) -> bool:
        """Waits while it is closed; False: go home."""
        with self._changed:
            self._parked += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_open or self._is_ending)
            self._parked -= 1
            return not self._is_ending

    def close(self, timeout_s: float) -> bool:
        """True once all are parked."""
        with self._changed:
            self._is_open = False
            return self._changed.wait_for(lambda: self._parked == self._walkers, timeout_s)

    @property
    def is_closed(self) -> bool:
        return not self._is_open

    def open(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()


class Pace:
    """Keeps one writer to its share of a core, by the time that it has computed itself."""

    # Then it starts afresh: long waits must not be paid back by a burst.
    _MOST_CREDIT_S = 0.1

    def __init__(self, share: float) -> None:
        self._share = share
        self._begin()

    def rest(self) -> None:
        if self._share >= 1:
            return
        used, passed = time.thread_time() - self._cpu, time.monotonic() - self._wall
        due = used / self._share - passed
        if due > 0:
            time.sleep(min(due, 1.0))
        elif due < -self._MOST_CREDIT_S:
            self._begin()

    def _begin(self) -> None:
        self._cpu, self._wall = time.thread_time(), time.monotonic()
