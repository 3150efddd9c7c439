"""A transport under test: makes sides that may use only this one, and connects them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from support.cache import Cache, Shape
from support.peer import PeerProcess, RemoteSide
from support.route import ROUTES
from support.side import Side

Ids = list[int]


class Wire:
    """Prefill sides live in the test's process, decode sides in the peer process.

    On loopback, which joins two sides of one process, decode sides live in the test's too; a
    `Side` and a `RemoteSide` are used alike.
    """

    def __init__(
        self, route: str, peer_process: Callable[[], PeerProcess], *, same_gpu: bool = False
    ) -> None:
        """`route` is a name of support.route, as is that of every transport for host memory."""
        self._route = route
        self._same_gpu = same_gpu
        self._arrangements: dict[str, str] = {}
        self.transport = ROUTES[route].transport
        self._peer_process = peer_process
        self._cleanup = ExitStack()
        self._seed = 1000

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def another(self) -> Wire:
        """The same transport, with communicators that are closed on their own."""
        return Wire(self._route, self._peer_process, same_gpu=self._same_gpu)

    def arrange(self, role: str, arrangement: str) -> None:
        """Where the GPU memory of sides to come lies: one of support.device_cache."""
        self._arrangements[role] = arrangement

    @property
    def only_the_sender_stops(self) -> bool:
        """Whether decode cannot end writes without prefill's help: it writes straight into it."""
        return self.transport in ("cma", "cuda_ipc")

    def settings(self, **more: str) -> dict[str, str]:
        """The variables for one side: this transport, the machine's NICs, and `more`."""
        machine = {k: v for k, v in os.environ.items() if k.startswith("KVCACHE_RDMA_")}
        return {"KVCACHE_TRANSPORT": self.transport, **machine, **more}

    def side(self, role: str, **settings: str) -> dict[str, Any]:
        """What a `support.side.Side` is given that a test makes by itself."""
        return {"settings": self.settings(**settings), **self._memory(role)}

    def prefill(self, shape: Shape, *, reconnect: bool | str = True, **settings: str) -> Side:
        what = {"seed": self._next_seed(), "reconnect": reconnect, **self._memory("prefill")}
        side = Side("prefill", shape, self.settings(**settings), **what)
        self._cleanup.callback(side.close)
        return side

    def prefill_in(
        self, process: PeerProcess, shape: Shape, *, reconnect: bool = True, **settings: str
    ) -> RemoteSide:
        """One in another process; whoever brought that also ends it."""
        what = {"seed": self._next_seed(), "reconnect": reconnect, **self._memory("prefill")}
        return process.open("prefill", shape, self.settings(**settings), **what)

    def decode_here(self, shape: Shape, **settings: str) -> Side:
        """One in the test's own process."""
        what = {"seed": self._next_seed(), **self._memory("decode")}
        side = Side("decode", shape, self.settings(**settings), **what)
        self._cleanup.callback(side.close)
        return side

    def decode(
        self,
        shape: Shape,
        *,
        process: PeerProcess | None = None,
        port: str = "0",
        **settings: str,
    ) -> Side | RemoteSide:
        what = {
            "settings": self.settings(**settings),
            "port": port,
            "seed": self._next_seed(),
            **self._memory("decode"),
        }
        if self.transport == "loopback":
            side: Side | RemoteSide = Side("decode", shape, **what)
        else:
            side = (process or self._peer_process()).open("decode", shape, **what)
        if process is None:  # whoever brought a process also ends it
            self._cleanup.callback(side.close)
        return side

    def pair(
        self, shape: Shape | None = None, decode_shape: Shape | None = None
    ) -> tuple[Side, Side | RemoteSide]:
        """A prefill and a decode side, connected."""
        shape = shape or Shape()
        prefill, decode = self.prefill(shape), self.decode(decode_shape or shape)
        assert prefill.connect(decode.address)
        assert prefill.transport_to(decode.address) == self.transport
        return prefill, decode

    def _memory(self, role: str) -> dict[str, Any]:
        """Where the caches of that role lie, for a side."""
        route = ROUTES[self._route]
        prefill, decode = route.gpus(same_gpu=self._same_gpu)
        memory, gpu = (
            (route.prefill_memory, prefill) if role == "prefill" else (route.decode_memory, decode)
        )
        if memory == "device":
            memory = self._arrangements.get(role, memory)
        return {"memory": memory, "gpu": gpu}

    def _next_seed(self) -> int:
        self._seed += 1
        return self._seed


def image_of(side: Side | RemoteSide) -> Cache:
    """The cache of an untouched side, rebuilt here byte by byte."""
    return Cache(side.shape, side.seed)


def random_map(
    shape: Shape, count: int, seed: int, dst_shape: Shape | None = None
) -> tuple[Ids, Ids]:
    """`count` pairs of block ids in no order; about a third are neighbours on both sides."""
    dice = random.Random(seed)

    def ids(blocks: int, run: int) -> Ids:
        start = dice.randrange(blocks - run + 1)
        neighbours = range(start, start + run)
        others = [block for block in range(blocks) if block not in neighbours]
        return [*neighbours, *dice.sample(others, count - run)]

    return ids(shape.blocks, count // 3), ids((dst_shape or shape).blocks, count // 3)


def all_layers(shape: Shape) -> Sequence[int]:
    return range(shape.layers)
