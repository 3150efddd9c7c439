"""Where the machine's decode sides live: in this process, or in one of a pool of others."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

from model.memory import Digests, Image, Memory
from model.notices import Notices
from support.cache import Cache, Shape
from support.peer import PeerProcess, RemoteSide
from support.side import Side
from support.wire import Wire


class Pool:
    """Peer processes, the next one started ahead: an interpreter takes its time."""

    def __init__(self) -> None:
        self._idle: deque[PeerProcess] = deque()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._idle:
            process.kill()
            process.close()

    def take(self) -> PeerProcess:
        process = self._idle.popleft() if self._idle else PeerProcess()
        if not self._idle:
            self._idle.append(PeerProcess())
        return process

    def give_back(self, process: PeerProcess) -> None:
        self._idle.appendleft(process)


@dataclass
class Life:
    """One life of decode, and the model of it."""

    side: Side | RemoteSide
    epoch: int
    memory: Memory
    notices: Notices = field(default_factory=Notices)
    left_as: Digests | None = None  # once closed: so its memory must stay

    def read(self, name: str, layer: int, block: int) -> bytes:
        return bytes.fromhex(self.side.read(name, layer, block, block + 1))


class Stage:
    """Makes sides of one shape; remembers them all, to end them."""

    def __init__(self, wire: Wire, pool: Pool, shape: Shape) -> None:
        self.is_one_process = wire.transport == "loopback"
        self._wire = wire
        self._pool = pool
        self._shape = shape
        self._seeds = itertools.count(1)
        self._process: PeerProcess | None = None
        self._is_stopped = False
        self._cleanup = contextlib.ExitStack()

    def prefill(self) -> Side:
        settings = self._wire.settings()
        side = Side("prefill", self._shape, settings, seed=next(self._seeds))
        self._cleanup.callback(side.close)
        return side

    def decode(self, port: str = "0") -> Life:
        seed, settings = next(self._seeds), self._wire.settings()
        side: Side | RemoteSide
        if self.is_one_process:
            side = Side("decode", self._shape, settings, port=port, seed=seed)
            self._cleanup.callback(side.close)
        else:
            self._process = self._process or self._pool.take()
            side = self._process.open("decode", self._shape, settings, port=port, seed=seed)
        return Life(side, side.epoch(), Memory(self._shape, Image(Cache(self._shape, seed))))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.close()
        self._process = None
        self._is_stopped = False

    def stop(self) -> None:
        assert self._process is not None
        self._process.pause()
        self._is_stopped = True

    def resume(self) -> None:
        assert self._process is not None
        self._process.resume()
        self._is_stopped = False

    def end(self, lives: list[Life], *, in_order: bool) -> None:
        """A process that has seen a failure is not used again."""
        if self._process is not None and not in_order:
            self.kill()
        self._cleanup.close()
        if self._process is not None:
            for life in lives:
                if isinstance(life.side, RemoteSide) and life.side.process is self._process:
                    life.side.forget()
            self._pool.give_back(self._process)
            self._process = None
