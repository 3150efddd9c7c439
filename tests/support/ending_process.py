"""A process that ends in a given way while transfers are under way.

`python -m support.ending_process ROLE WORK ENDING WHAT [HOST PORT]`; WHAT a side is given, as JSON.
It prints one line when all is under way (decode: its address), and ends by a signal, or by itself
once its standard input does.
What fails in its background threads is no news: the communicator is closed under them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from rdma_kv import RDMACommunicator, _core
from support.cache import Shape
from support.patience import SCALE
from support.side import HERE, Side

# One write takes milliseconds, and many are queued: some are under way at any moment.
SHAPE = Shape(layers=2, blocks=256, block_bytes=max(4 << 10, round((16 << 10) / SCALE)))
EVERY = list(range(SHAPE.blocks))
TURNED = EVERY[::-1]
QUEUED = 16
LONG_S = 600.0  # nothing here ends by its deadline

WORKS = ("sync", "async", "await", "threads")


class Prefill:
    """Writes for ever."""

    def __init__(self, side: Side, address: tuple[str, str]) -> None:
        assert side.connect(address)
        self._side = side
        self._address = address

    def start(self) -> Any:
        return self._side.comm.write_cache_async(
            *self._address, EVERY, TURNED, tag=1, timeout_s=LONG_S
        )

    def once(self) -> None:
        self._side.comm.write_cache(*self._address, EVERY, TURNED, tag=1, timeout_s=LONG_S)

    def many(self) -> None:
        """Keeps a queue of them."""
        under_way = [self.start() for _ in range(QUEUED)]
        under_way[0].wait()

    async def awaited(self) -> None:
        await asyncio.gather(*(self._write_on() for _ in range(QUEUED)))

    async def _write_on(self) -> None:
        while True:
            await self.start()


class Decode:
    """Waits for ever for what never comes, beside what does."""

    def __init__(self, comm: RDMACommunicator) -> None:
        self._comm = comm

    def once(self) -> None:
        self._comm.received(2, LONG_S)

    def many(self) -> None:
        select.select([self._comm.fileno()], [], [], LONG_S)
        self._comm.poll_received()

    async def awaited(self) -> None:
        async for _ in self._comm:
            pass


def for_ever(work: Callable[[], None]) -> None:
    while True:
        work()


def in_background(work: Callable[[], None]) -> None:
    def run() -> None:
        with contextlib.suppress(Exception):  # closed, or the peer is gone
            for_ever(work)

    threading.Thread(target=run, daemon=True).start()


def end(ending: str) -> None:
    """Returns for what the interpreter or a signal does."""
    if ending == "sys_exit":
        sys.exit(3)
    if ending == "os_exit":
        os._exit(4)
    if ending == "raise":
        raise RuntimeError("the end")
    if ending.startswith("fork_"):
        fork(ending.removeprefix("fork_"))


def fork(ending: str) -> None:
    """A child that ends; then the parent, which has lost nothing, returns."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(round(20 * SCALE))  # one that hangs is killed, and has failed
        end(ending)
        sys.exit(0)
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def is_signal(ending: str) -> bool:
    return ending.startswith("SIG")


def say(*words: object) -> None:
    print(*words, flush=True)


async def in_asyncio(
    awaited: Callable[[], Awaitable[None]], ending: str, ready: Callable[[], None]
) -> None:
    task = asyncio.ensure_future(awaited())
    await asyncio.sleep(0.05 * SCALE)  # the writes, or the wait, have begun
    ready()
    if ending == "SIGTERM_handled":  # as asyncio wants it: an exception there goes astray
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return
    if is_signal(ending):
        await task
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    end(ending)


def run(actor: Prefill | Decode, work: str, ending: str, ready: Callable[[], None]) -> None:
    if work == "await":
        asyncio.run(in_asyncio(actor.awaited, ending, ready))
        if ending == "SIGTERM_handled":
            sys.exit(5)
        return
    foreground = {"sync": actor.once, "async": actor.many, "threads": threading.Event().wait}[work]
    if work == "threads":
        for _ in range(8):
            in_background(actor.once)
    elif not is_signal(ending):
        in_background(foreground)
    ready()
    if is_signal(ending):
        for_ever(foreground)
    sys.stdin.read()
    end(ending)


def main() -> None:
    role, work, ending, what, *address = sys.argv[1:]
    if ending == "SIGTERM_handled":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    side = Side("decode" if role == "decode" else "prefill", SHAPE, **json.loads(what))
    if role == "decode":
        run(Decode(side.comm), work, ending, lambda: say(HERE, side.comm.port))
        return
    if role == "both":
        decode = Side("decode", SHAPE, **json.loads(what))
        _core.loopback_faults().delay(LONG_S)
        address = list(decode.address)
    prefill = Prefill(side, (address[0], address[1]))
    run(prefill, work, ending, lambda: say("ready"))


if __name__ == "__main__":
    main()
