"""Writers that keep a connection busy: some wait for each write, some have two under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rdma_kv import HandshakeError, RDMACommunicator, Transfer, TransferError
from support.lanes import Lanes

# Lane by lane: whose writes are waited for in the call, and which two share a thread.
SYNC = (0, 1)
ASYNC = ((2, 3), (4, 5))
LANES = 6


@dataclass
class Lane:
    """How far a lane came. Its writes follow each other; the first that fails is its last."""

    done: int | None = None  # the last write that ended well
    failed: int | None = None
    kind: str = ""  # class of the error
    error: str = ""
    writes: int = 0


class Load:
    """Six lanes, four threads. `tagged`: every write has a notice; else those of every other lane."""

    def __init__(
        self,
        comm: RDMACommunicator,
        address: Sequence[str],
        *,
        blocks: int,
        size: int,
        first: int = 0,
        begin: int = 0,
        tagged: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        self._comm = comm
        self._address = tuple(address)
        self._lanes = Lanes(blocks, LANES, size, first)
        self._begin = begin
        self._is_tagged = tagged
        self._timeout_s = timeout_s
        self.lanes = [Lane() for _ in range(LANES)]
        self._is_over = threading.Event()
        self._started = 0.0
        works = [(self._write_sync, lane) for lane in SYNC]
        works += [(self._write_async, pair) for pair in ASYNC]  # type: ignore[misc]
        self._threads = [
            threading.Thread(target=work, args=(what,), daemon=True) for work, what in works
        ]

    def start(self) -> None:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    def await_flow(self, writes: int, timeout_s: float) -> float:
        """Waits until every lane has so many; returns the seconds that one takes."""
        deadline = time.monotonic() + timeout_s
        while (least := min(lane.writes for lane in self.lanes)) < writes:
            assert time.monotonic() < deadline, f"no flow of writes: {self.lanes}"
            assert not any(lane.error for lane in self.lanes), f"it failed early: {self.lanes}"
            time.sleep(0.001)
        return (time.monotonic() - self._started) / least

    def end(self, timeout_s: float, *, ask: bool) -> list[Lane]:
        if ask:
            self._is_over.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hung = [thread.name for thread in self._threads if thread.is_alive()]
        assert not hung, f"writers hang: {hung}, {self.lanes}"
        return self.lanes

    # ---- the writers

    def _write_sync(self, lane: int) -> None:
        write = self._begin
        while not self._is_over.is_set():
            try:
                self._comm.write_cache(*self._what(lane, write), **self._how(lane, write))
            except (TransferError, HandshakeError) as error:
                return self._fail(lane, write, error)
            self._finish(lane, write)
            write += 1

    def _write_async(self, pair: tuple[int, int]) -> None:
        write = self._begin
        lanes = list(pair)
        while lanes and not self._is_over.is_set():
            under_way: list[tuple[int, Transfer]] = []
            for lane in lanes:
                try:
                    made = self._comm.write_cache_async(
                        *self._what(lane, write), **self._how(lane, write)
                    )
                    under_way.append((lane, made))
                except (TransferError, HandshakeError) as error:
                    self._fail(lane, write, error)
            for lane, transfer in under_way:
                try:
                    transfer.wait()
                    self._finish(lane, write)
                except TransferError as error:
                    self._fail(lane, write, error)
            lanes = [lane for lane in lanes if not self.lanes[lane].error]
            write += 1

    def _what(self, lane: int, write: int) -> tuple[str, str, list[int], list[int]]:
        ip, port = self._address
        return ip, port, self._lanes.src(lane, write), self._lanes.dst(lane)

    def _how(self, lane: int, write: int) -> dict[str, float]:
        tag = self._lanes.tag(lane, write) if self._is_tagged or lane % 2 else 0
        return {"tag": tag, "timeout_s": self._timeout_s}

    def _finish(self, lane: int, write: int) -> None:
        self.lanes[lane].done = write
        self.lanes[lane].writes += 1

    def _fail(self, lane: int, write: int, error: Exception) -> None:
        self.lanes[lane].failed = write
        self.lanes[lane].kind = type(error).__name__
        self.lanes[lane].error = str(error)
