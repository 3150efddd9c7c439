"""One write, from its call to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator

from rdma_kv import _core
from rdma_kv._stats import TransferStats


class Transfer:
    """A write under way, from :meth:`RDMACommunicator.write_cache_async`.

    Until it is done, do not free or overwrite the local blocks it named. It keeps its communicator
    alive, and may be waited for, awaited and cancelled from any number of threads and tasks.
    """

    def __init__(self, core: _core.Transfer, owner: object) -> None:
        self._core = core
        self._owner = owner

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout_s: Seconds to wait; None: until the end, which the write's own deadline bounds.

        Returns:
            True once every byte is visible at the peer, False when the time was up before.
            The write goes on then.

        Raises:
            TransferError: It failed; nothing of it can land any more (but see NotQuiesced).
        """
        return self._core.wait(timeout_s)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._core.done()

    def cancel(self) -> None:
        """Ask to stop it. It ends with TransferCancelled, or well when it was too late."""
        self._core.cancel()

    def error(self) -> Exception | None:
        """What it failed with; None while under way and after success."""
        return self._core.error()

    def fileno(self) -> int:
        """A descriptor that is readable once it has ended; do not read from it."""
        return self._core.fileno()

    @property
    def stats(self) -> TransferStats:
        """Its figures so far."""
        return TransferStats.from_core(self._core.stats)

    def __await__(self) -> Generator[object, None, Transfer]:
        """Wait in an asyncio task; cancelling the task asks the write to stop."""
        if not self._core.done():
            try:
                yield from readable(self._core.fileno()).__await__()
            except asyncio.CancelledError:
                self._core.cancel()
                raise
        self._core.wait(0)
        return self

    def __repr__(self) -> str:
        state = (
            "under way"
            if not self.done()
            else f"failed: {error}"
            if (error := self.error())
            else "done"
        )
        return f"<Transfer {state}>"


async def readable(descriptor: int) -> None:
    """Waits in this task's loop until a descriptor is readable."""
    loop = asyncio.get_running_loop()
    event = loop.create_future()
    # A loop knows one reader per descriptor: a copy lets many tasks wait for the same thing.
    copy = os.dup(descriptor)

    def settle() -> None:
        if not event.done():
            event.set_result(None)

    loop.add_reader(copy, settle)
    try:
        await event
    finally:
        loop.remove_reader(copy)
        os.close(copy)
