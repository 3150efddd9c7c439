"""Writers that keep a connection busy: some wait for each write, some have two under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rdma_kv import HandshakeError, RDMACommunicator, Transfer, TransferError
from support.lanes import Lanes
from support.outcome import ending
from support.patience import scaled

# Lane by lane: whose writes are waited for in the call, and which two share a thread.
SYNC = (0, 1)
ASYNC = ((2, 3), (4, 5))
LANES = 6

Ended = dict[int, Exception | None]


@dataclass
class Lane:
    """How far a lane came. Its writes follow each other."""

    done: int | None = None  # the last write that ended well
    failed: int | None = None  # the first one after it that did not
    kind: str = ""  # class of the error
    error: str = ""
    writes: int = 0


class Load:
    """Six lanes, four threads.

    `tagged`: every write has a notice; else those of every other lane. `stubborn`: after an error
    the writer connects and writes the same again, as an engine does; else its lane ends there.
    """

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
        stubborn: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        self._is_stubborn = stubborn
        self._comm = comm
        self._address = tuple(address)
        self._lanes = Lanes(blocks, LANES, size, first)
        self._begin = begin
        self._is_tagged = tagged
        self._timeout_s = timeout_s
        self.lanes = [Lane() for _ in range(LANES)]
        self._is_over = threading.Event()
        self._started = 0.0
        self._threads = [
            threading.Thread(target=self._work, args=(lanes,), daemon=True)
            for lanes in (*([lane] for lane in SYNC), *ASYNC)
        ]

    def start(self) -> None:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    def await_flow(self, writes: int, timeout_s: float) -> float:
        """Waits for so many more of every lane; returns the seconds that one takes."""
        deadline = time.monotonic() + timeout_s
        began = [lane.writes for lane in self.lanes]
        while any(lane.writes < had + writes for lane, had in zip(self.lanes, began, strict=True)):
            assert time.monotonic() < deadline, f"no flow of writes: {self.lanes}"
            is_hopeless = not self._is_stubborn and any(lane.error for lane in self.lanes)
            assert not is_hopeless, f"it failed early: {self.lanes}"
            time.sleep(0.001)
        return (time.monotonic() - self._started) / min(lane.writes for lane in self.lanes)

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

    def _work(self, lanes: Sequence[int]) -> None:
        left = dict.fromkeys(lanes, self._begin)
        while left and not self._is_over.is_set():
            ended = self._write_sync(left) if len(lanes) == 1 else self._write_async(left)
            for lane, error in ended.items():
                self._note(lane, left[lane], error)
                if error is None:
                    left[lane] += 1
                elif not self._is_stubborn:
                    del left[lane]
            if self._is_stubborn and any(ended.values()):
                self._connect()

    def _write_sync(self, left: Mapping[int, int]) -> Ended:
        ((lane, write),) = left.items()
        try:
            self._comm.write_cache(*self._what(lane, write), **self._how(lane, write))
        except (TransferError, HandshakeError) as error:
            return {lane: error}
        return {lane: None}

    def _write_async(self, left: Mapping[int, int]) -> Ended:
        ended: Ended = {}
        under_way: dict[int, Transfer] = {}
        for lane, write in left.items():
            try:
                under_way[lane] = self._comm.write_cache_async(
                    *self._what(lane, write), **self._how(lane, write)
                )
            except (TransferError, HandshakeError) as error:
                ended[lane] = error
        for lane, transfer in under_way.items():
            ended[lane] = ending(transfer)
        return ended

    def _connect(self) -> None:
        while not self._is_over.is_set():
            try:
                self._comm.connect(*self._address, timeout_s=scaled(5))
                return
            except HandshakeError:  # nobody there, yet
                time.sleep(0.005)

    def _what(self, lane: int, write: int) -> tuple[str, str, list[int], list[int]]:
        ip, port = self._address
        return ip, port, self._lanes.src(lane, write), self._lanes.dst(lane)

    def _how(self, lane: int, write: int) -> dict[str, float]:
        tag = self._lanes.tag(lane, write) if self._is_tagged or lane % 2 else 0
        return {"tag": tag, "timeout_s": self._timeout_s}

    def _note(self, lane: int, write: int, error: Exception | None) -> None:
        it = self.lanes[lane]
        if error is None:
            it.done, it.failed = write, None
            it.writes += 1
        else:
            it.failed, it.kind, it.error = write, type(error).__name__, str(error)
