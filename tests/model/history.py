"""One history: what has been done, what is known, and how what happens is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from model.memory import Image, changed_places
from model.orders import MOST_UNDER_WAY, PATIENT_S, SHORT_S, Order, Pairs
from model.sender import Kinds, Link, Sender, Write
from model.stage import Life, Pool, Stage
from rdma_kv import (
    NotQuiesced,
    PeerLost,
    TransferError,
    TransferRevoked,
    TransferTimeout,
)
from support.cache import Shape
from support.patience import eventually, scaled
from support.wire import Wire


class History(RuleBasedStateMachine):
    """A subclass says on which wire, and with which processes."""

    wire: ClassVar[Wire]
    pool: ClassVar[Pool]
    first_failure: ClassVar[tuple[Exception, list[str]] | None] = None
    notices_within_s = 10.0
    outcomes: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[str] = []
        self.writes = 0
        self.kills = 0
        self.revoked: set[int] = set()
        self.ever_revoked: set[int] = set()
        self.lives: list[Life] = []
        self.is_up = self.is_stopped = False
        self.steps_left = 0  # until a decode that is away comes back by itself
        self.shape: Shape
        self.stage: Stage
        self.senders: list[Sender]

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def address(self) -> tuple[str, ...]:
        return self.life.side.address

    @property
    def is_one_process(self) -> bool:
        return self.wire.transport == "loopback"

    def _tell(self, what: str) -> None:
        self.journal.append(what)

    def _all_under_way(self) -> list[Write]:
        return [write for sender in self.senders for write in sender.under_way]

    def _new_sender(self) -> Sender:
        side = self.stage.prefill()
        return Sender(side, side.epoch(), Image(side.cache))

    def _start_decode(self, port: str) -> None:
        self.lives.append(self.stage.decode(port))
        self.is_up = True
        self.revoked = set()

    def _gone(self) -> None:
        self.is_up = self.is_stopped = False
        for sender in self.senders:
            sender.shake(Link.DOOMED, PeerLost)
            sender.is_sent_away = False
            self._see_lingering_end(sender)

    def _connect(self, which: int) -> None:
        sender = self.senders[which]
        was_alive = sender.side.is_connected(self.address)
        error = self._call(lambda: sender.side.connect(self.address))
        self._tell(f"connect({which}) with its link {sender.link.name}: {error!r}")
        assert error is None, f"decode is there, and connect said {error!r}"
        if not was_alive or sender.link is Link.NONE:
            sender.link, sender.is_sent_away = Link.GOOD, False
        elif sender.is_sent_away:
            sender.is_sent_away = None  # it may have found the old link dead, and made a new one

    def _connect_if(self, is_back: bool, which: int) -> None:
        if is_back and self.is_up:
            self._connect(which)

    def _fill(self, which: int) -> None:
        """New content, where no write reads it."""
        sender = self.senders[which]
        if sender.is_reading():
            return
        sender.side.fill(1000 + self.writes)
        sender.image = Image(sender.side.cache)
        self._tell(f"fill({which})")

    @staticmethod
    def _call(call: Callable[[], object]) -> Exception | None:
        try:
            call()
        except Exception as error:
            return error
        return None

    def _plan(self, sender: Sender, pairs: Pairs, order: Order) -> Write:
        may_succeed, errors = self._outlook(sender, order)
        if not pairs and order.tag == 0 and sender.link in (Link.DOOMED, Link.SHAKEN):
            may_succeed = True  # nothing moves, so nothing is noticed
        self.writes += 1
        write = Write(
            number=self.writes,
            src=[src for src, _ in pairs],
            dst=[dst for _, dst in pairs],
            layers=range(self.shape.layers) if order.layers is None else order.layers,
            tag=order.tag,
            epoch=sender.epoch,
            faults=sender.faults,
            may_succeed=may_succeed,
            errors=errors,
            life=len(self.lives),
        )
        if may_succeed:
            self.life.memory.begin(write.number, sender.image, write.src, write.dst, write.layers)
        return write

    def _outlook(self, sender: Sender, order: Order) -> tuple[bool, Kinds]:
        """What a write may come to when it is called now: success, and these errors."""
        is_for_another_life = order.pin == "wrong" or (
            order.pin == "former" and len(self.lives) > 1
        )
        may_succeed, errors = True, Kinds()
        if sender.link is Link.NONE or not self.is_up or is_for_another_life:
            may_succeed, errors = False, {PeerLost}
        elif order.tag in self.revoked:
            may_succeed, errors = False, {TransferRevoked}
            if sender.link is not Link.GOOD:
                errors.add(PeerLost)
        elif sender.is_sent_away is not False:
            may_succeed, errors = sender.is_sent_away is None, {PeerLost}
        elif sender.link in (Link.DOOMED, Link.SHAKEN):
            errors = {PeerLost}
        if self.is_stopped:
            errors |= {PeerLost, NotQuiesced, TransferTimeout}
        # A link that is broken, and not seen to be, knows what was revoked before.
        if sender.link in (Link.DOOMED, Link.SHAKEN) and order.tag in self.ever_revoked:
            errors.add(TransferRevoked)
        return may_succeed, errors

    def _prepare(self, order: Order) -> Sender:
        sender = self.senders[order.which]
        if sender.link is Link.NONE and not self.is_stopped:
            self._connect_if(order.is_connected_first, order.which)
        self._fill(order.which)
        return sender

    def _write(self, order: Order, pairs: Pairs, *also: type[Exception]) -> None:
        sender = self._prepare(order)
        write = self._plan(sender, pairs, order)
        write.errors |= set(also)
        error = self._call(lambda: self._submit(sender, write, order, is_async=False))
        self._judge(sender, write, error)

    def _write_async(self, order: Order, pairs: Pairs, timeout_s: float | None = None) -> Write:
        sender = self._prepare(order)
        if len(sender.under_way) >= MOST_UNDER_WAY and not self.is_stopped:
            self._settle(sender, sender.under_way[0])
        write = self._plan(sender, pairs, order)
        if timeout_s is not None:
            write.errors |= {TransferTimeout}
            if sender.link is not Link.GOOD:
                write.errors |= {PeerLost}  # no time to connect again
        elif self.is_stopped and not sender.side.is_connected(self.address):
            timeout_s = SHORT_S
        error = self._call(lambda: self._submit(sender, write, order, timeout_s, is_async=True))
        if error is not None:
            self._judge(sender, write, error, is_refused=True)
        else:
            sender.under_way.append(write)
            self._tell(f"write {write.number} is under way: {self._words(sender, write)}")
        return write

    def _submit(
        self,
        sender: Sender,
        write: Write,
        order: Order,
        timeout_s: float | None = None,
        *,
        is_async: bool,
    ) -> None:
        epochs = {
            None: None,
            "this": self.life.epoch,
            "former": self.lives[-2 if len(self.lives) > 1 else -1].epoch,
            "wrong": self.life.epoch ^ 1 or 2,
        }
        arguments: Any = (*self.address, write.src, write.dst, order.layers)
        more: Any = {
            "tag": write.tag,
            "timeout_s": scaled(PATIENT_S) if timeout_s is None else timeout_s,
            "peer_epoch": epochs[order.pin],
        }
        if is_async:
            write.transfer = sender.side.comm.write_cache_async(*arguments, **more)
        else:
            sender.side.comm.write_cache(*arguments, **more)

    def _settle(self, sender: Sender, write: Write) -> None:
        """Waits for its end, whatever that is."""
        assert write.transfer is not None
        error: Exception | None = None
        try:
            has_ended = write.transfer.wait(scaled(2 * PATIENT_S))
            assert has_ended, f"write {write.number} does not end: {write.transfer!r}"
        except TransferError as failure:
            error = failure
        sender.under_way.remove(write)
        self._judge(sender, write, error)

    def _judge(
        self, sender: Sender, write: Write, error: Exception | None, *, is_refused: bool = False
    ) -> None:
        """A write has ended: is this an end that it may have, and what follows from it?"""
        self._tell(f"write {write.number} ended: {error!r}; {self._words(sender, write)}")
        kind = type(error).__name__
        self.outcomes[kind if error else "success"] += 1
        if error is None:
            assert write.may_succeed, f"write {write.number} cannot have succeeded"
        else:
            allowed = sorted(kind.__name__ for kind in write.errors)
            assert type(error) in write.errors, (
                f"write {write.number} must {'succeed' if write.may_succeed else 'fail'}"
                f"{' or end with ' if write.may_succeed else ', with '}{allowed}, not {error!r}"
            )
        if isinstance(error, NotQuiesced):
            sender.lingering.append(write)
        else:
            self._end(write, error, is_refused=is_refused)
        if sender.faults == write.faults and not (error is None and write.is_empty):
            self._learn(sender, error)

    def _end(self, write: Write, error: Exception | None, *, is_refused: bool = False) -> None:
        """Nothing of it can land any more."""
        if write.life != len(self.lives) or not self.is_up:
            return
        notices = self.life.notices
        if write.may_succeed:
            self.life.memory.end(write.number, write.dst, write.layers, succeeded=error is None)
        if write.tag == 0 or write.is_notice_void or is_refused:
            return
        key = (write.tag, write.epoch)
        if error is None:
            notices.succeeded(key)
        elif PeerLost in write.errors:  # its confirmation may have been lost
            notices.may_have_come(key)

    def _learn(self, sender: Sender, error: Exception | None) -> None:
        """What the end of a write tells of the link that it was given to."""
        if sender.link is Link.NONE or self.is_stopped:
            return
        if error is None:
            sender.link, sender.is_sent_away = Link.GOOD, False
        elif isinstance(error, PeerLost) and sender.link is not Link.GOOD:
            sender.link = Link.DOWN
            if "decode has revoked all" in str(error):
                sender.is_sent_away = True

    def _settle_all(self) -> None:
        for sender in self.senders:
            for write in list(sender.under_way):
                self._settle(sender, write)

    def _see_lingering_end(self, sender: Sender) -> None:
        if not sender.lingering:
            return
        eventually(lambda: not sender.side.unquiesced(), 15, "the peer is back, and confirms")
        for write in sender.lingering:
            self._end(write, NotQuiesced(""))
        sender.lingering.clear()

    def _check_unchanged_since(self, at_return: dict[str, list[str]]) -> None:
        """What no write may change has not changed since decode took back what it granted."""
        changes = [
            place
            for place in changed_places(at_return, self.life.side.block_digests())
            if self.life.memory.is_settled(*place)
        ]
        assert not changes, f"changed after revoke() had returned: {changes[:8]}"

    def _take_notices(self) -> None:
        under_way = Counter(
            (write.tag, write.epoch) for write in self._all_under_way() if not write.is_notice_void
        )
        self.life.notices.take(self._polled(), under_way)

    def _polled(self) -> list[tuple[int, int]]:
        return [(tag, epoch) for tag, epoch, _ in self.life.side.notices()]

    def _has_all_notices(self) -> bool:
        self._take_notices()
        return not self.life.notices.missing()

    def _words(self, sender: Sender, write: Write) -> str:
        which = self.senders.index(sender) if sender in self.senders else "?"
        return (
            f"prefill {which}, {len(write.src)} blocks, layers {write.layers}, tag {write.tag}, "
            f"link {sender.link.name}, errors {sorted(e.__name__ for e in write.errors)}"
        )
