"""The machine fails when something is wrong: otherwise its passing would mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis.stateful import invariant

from model.machine import Machine, machine_on, play
from model.profile import short
from model.sender import Link
from model.stage import Pool
from rdma_kv import PeerLost
from support.wire import Wire

# A history that comes to a write is among the first of these.
EXAMPLES = 40


class Spoiler(Machine):
    """Does something to decode once, behind the model's back, when a few writes are over."""

    spoil: Callable[[Any], None]
    has_spoiled = False

    @invariant()
    def spoil_once(self) -> None:
        is_there = bool(self.lives) and self.is_up and not self.is_stopped
        if self.writes >= 3 and is_there and not self.has_spoiled:
            self.has_spoiled = True
            type(self).spoil(self)


class OneByte(Spoiler):
    @staticmethod
    def spoil(machine: Spoiler) -> None:
        machine.life.side.flip("value", 1, 7)


class OneGuardByte(Spoiler):
    @staticmethod
    def spoil(machine: Spoiler) -> None:
        machine.life.side.flip("key", 0, -1)


class TwoBlocksSwapped(Spoiler):
    @staticmethod
    def spoil(machine: Spoiler) -> None:
        machine.life.side.swap("key", 1, 4, 5)


class NoticeLost(Machine):
    notices_within_s = 0.2

    def _take_notices(self) -> None:
        self.life.side.notices()
        super()._take_notices()


class NoticeTwice(Machine):
    def _polled(self) -> list[tuple[int, int]]:
        return 2 * super()._polled()


class SuccessOfNothing(Machine):
    """A write that says that it is done, and has moved nothing."""

    def _submit(self, sender: Any, write: Any, order: Any, *more: Any, is_async: bool) -> None:
        if is_async or not write.src or sender.link is not Link.GOOD or not write.may_succeed:
            super()._submit(sender, write, order, *more, is_async=is_async)


class SpuriousLoss(Machine):
    def _submit(self, sender: Any, write: Any, order: Any, *more: Any, is_async: bool) -> None:
        super()._submit(sender, write, order, *more, is_async=is_async)
        if not is_async and sender.link is Link.GOOD:
            raise PeerLost("for no reason")


class LandsAfterItsFailure(Machine):
    """The bytes of a write arrive when it has been told to have failed."""

    def _judge(self, sender: Any, write: Any, error: Exception | None, **more: bool) -> None:
        super()._judge(sender, write, error, **more)
        if write.dst and error is not None and self.is_up and not self.is_stopped:
            self.life.side.flip("key", 0, write.dst[0] * self._stride())

    def _stride(self) -> int:
        return self.shape.block_bytes + self.shape.padding


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("faulty", "complaint"),
    [
        (OneByte, r"value\[1\] block 0 "),
        (OneGuardByte, r"key\[0\]: bytes outside of the blocks changed"),
        (TwoBlocksSwapped, r"key\[1\] block 4 .*; key\[1\] block 5 "),
        (NoticeLost, "not within .*: notices: "),
        (NoticeTwice, "2 notices with tag . of epoch .*, of at most 1"),
        (SuccessOfNothing, "holds neither what was written"),
        (SpuriousLoss, "must succeed .*, not PeerLost.'for no reason'"),
        (LandsAfterItsFailure, r"key\[0\] block .*"),
    ],
)
def test_the_machine_catches(wire: Wire, pool: Pool, faulty: type[Machine], complaint: str):
    machine = machine_on(wire, pool, faulty)

    with pytest.raises(AssertionError, match=complaint):
        play(machine, 7, short(EXAMPLES))
