"""Two prefills and a decode side driven at random, and compared with a model after every step.

The model's preconditions look at what was commanded, never at how things went: the same choices
must lead to the same rules when a history is replayed, however it is timed.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model.memory import Image, changed_places
from model.profile import IS_SOAK
from model.sender import Kinds, Link, Sender, Write
from model.stage import Life, Pool, Stage

from rdma_kv import (
    HandshakeError,
    NotQuiesced,
    PeerLost,
    TransferCancelled,
    TransferError,
    TransferRevoked,
    TransferTimeout,
    _core,
)
from support.cache import Shape
from support.patience import SCALE, eventually, scaled
from support.wire import Wire

BLOCKS = 16
# Odd sizes with paddings and scales; and blocks of which a write takes a while.
SMALL = Shape(layers=2, blocks=BLOCKS, block_bytes=48, padding=16, scale_bytes=8)
LARGE = Shape(layers=2, blocks=BLOCKS, block_bytes=max(8 << 10, round((64 << 10) / SCALE)))
MOST_UNDER_WAY = 12
TAGS = (1, 2, 3)
PATIENT_S, SHORT_S = 30.0, 0.5
# How decode names every prefill of this process.
OUR_NAME = f"127.0.0.1 (pid {os.getpid()})"

Pairs = list[tuple[int, int]]


def some_of_them(count: int, dice_seed: int) -> Pairs:
    dice = random.Random(dice_seed)
    return [(dice.randrange(BLOCKS), dst) for dst in dice.sample(range(BLOCKS), count)]


# A few choices each: Hypothesis gives up histories of many thousands.
seeds = st.integers(0, 2**32)
some_pairs = st.builds(some_of_them, st.integers(0, 8), seeds)
all_pairs = st.builds(some_of_them, st.just(BLOCKS), seeds)
pairs_of_blocks = some_pairs | all_pairs
layer_ranges = st.sampled_from([None, range(1), range(1, 2), range(2)])
tags = st.sampled_from([0, 0, *TAGS])
senders = st.sampled_from([0, 0, 1])
lives_pinned = st.sampled_from([*[None] * 6, "this", "this", "former", "wrong"])
mostly = st.sampled_from([True, True, False])
away_for = st.integers(0, 4)  # steps
positions = st.integers(0, MOST_UNDER_WAY - 1)


@dataclass(frozen=True)
class Order:
    """What a write is asked to be, besides its blocks."""

    which: int
    layers: range | None
    tag: int
    pin: str | None
    is_connected_first: bool


orders = st.builds(Order, senders, layer_ranges, tags, lives_pinned, mostly)
plain_orders = st.builds(Order, senders, st.none(), tags, st.none(), mostly)


class Machine(RuleBasedStateMachine):
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

    @initialize(shape=st.sampled_from([SMALL, LARGE]), connected=st.sampled_from([2, 2, 2, 1, 0]))
    def begin(self, shape: Shape, connected: int) -> None:
        self.shape = shape
        self.stage = Stage(self.wire, self.pool, shape)
        self._start_decode("0")
        self.senders = [self._new_sender() for _ in range(2)]
        for which in range(connected):
            self.connect(which)

    # ---- prefill: connections

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(which=senders)
    def connect(self, which: int) -> None:
        sender = self.senders[which]
        was_alive = sender.side.is_connected(self.address)
        error = self._call(lambda: sender.side.connect(self.address))
        self._tell(f"connect({which}) with its link {sender.link.name}: {error!r}")
        assert error is None, f"decode is there, and connect said {error!r}"
        if not was_alive or sender.link is Link.NONE:
            sender.link, sender.is_sent_away = Link.GOOD, False
        elif sender.is_sent_away:
            sender.is_sent_away = None  # it may have found the old link dead, and made a new one

    @precondition(lambda self: not self.is_up or self.is_stopped)
    @rule(which=senders)
    def connect_in_vain(self, which: int) -> None:
        sender = self.senders[which]
        was_alive = sender.side.is_connected(self.address)
        error = self._call(lambda: sender.side.connect(self.address, timeout_s=SHORT_S))
        self._tell(f"connect_in_vain({which}): {error!r}")
        if error is None:
            assert was_alive, "connected, but to nobody"
        else:
            assert isinstance(error, HandshakeError), repr(error)
            sender.link = Link.NONE if sender.link is Link.NONE else Link.DOWN

    @precondition(lambda self: not self.is_stopped)
    @rule(which=senders, is_back=mostly)
    def disconnect(self, which: int, is_back: bool) -> None:
        sender = self.senders[which]
        sender.side.disconnect(self.address)
        self._tell(f"disconnect({which})")
        for write in list(sender.under_way):
            assert write.transfer is not None
            assert write.transfer.done(), "disconnect waits for what is under way"
            self._settle(sender, write)
        assert not sender.side.is_connected(self.address)
        sender.link = Link.NONE
        self._connect_if(is_back, which)

    @precondition(lambda self: not self.is_stopped)
    @rule(which=senders, is_back=mostly)
    def close_and_reopen_prefill(self, which: int, is_back: bool) -> None:
        sender = self.senders[which]
        sender.side.close()
        self._tell(f"close_and_reopen_prefill({which})")
        for write in list(sender.under_way):
            assert write.transfer is not None
            assert write.transfer.done(), "close waits for what is under way"
            self._settle(sender, write)
        assert sender.side.block_digests() == sender.image.digests, "prefill's blocks changed"
        self.senders[which] = self._new_sender()
        self._connect_if(is_back, which)

    # ---- prefill: writes

    @precondition(lambda self: not self.is_stopped)
    @rule(order=orders, pairs=some_pairs)
    def write_some(self, order: Order, pairs: Pairs) -> None:
        self._write(order, pairs)

    @precondition(lambda self: not self.is_stopped)
    @rule(order=orders, pairs=all_pairs)
    def write_all(self, order: Order, pairs: Pairs) -> None:
        self._write(order, pairs)

    @precondition(lambda self: not self.is_stopped)
    @rule(order=plain_orders, pairs=some_pairs, count=st.integers(2, 4))
    def write_again_and_again(self, order: Order, pairs: Pairs, count: int) -> None:
        for i in range(count):
            self._write(order, [((src + i) % BLOCKS, dst) for src, dst in pairs])

    @rule(order=orders, pairs=some_pairs)
    def begin_to_write_some(self, order: Order, pairs: Pairs) -> None:
        self._write_async(order, pairs)

    @rule(order=plain_orders, pairs=all_pairs, count=st.integers(1, 4))
    def begin_to_write_all(self, order: Order, pairs: Pairs, count: int) -> None:
        for _ in range(count):
            self._write_async(order, pairs)

    @rule(
        order=plain_orders,
        pairs=pairs_of_blocks,
        timeout_s=st.sampled_from([0.0, 1e-5, 1e-3, 0.01]),
    )
    def write_with_a_tiny_deadline(self, order: Order, pairs: Pairs, timeout_s: float) -> None:
        self._write_async(order, pairs, timeout_s)

    @rule(order=plain_orders, pairs=all_pairs, count=st.integers(1, 3), position=positions)
    def write_and_cancel(self, order: Order, pairs: Pairs, count: int, position: int) -> None:
        for _ in range(count):
            self._write_async(order, pairs)
        self.cancel(order.which, position)

    @precondition(lambda self: not self.is_stopped)
    @rule(
        which=senders,
        pairs=some_pairs,
        block=st.sampled_from([-1, BLOCKS, 2**31, 2**40, -(2**63), None]),
        is_local=st.booleans(),
        layers=st.sampled_from([None, -1, 2, range(1, 3)]),
        tag=st.sampled_from([0, 1, -1, 2**32]),
    )
    def write_nonsense(
        self,
        which: int,
        pairs: Pairs,
        block: int | None,
        is_local: bool,
        layers: int | range | None,
        tag: int,
    ) -> None:
        """One thing at least is wrong with it: refused whole, by whatever call."""
        sender = self.senders[which]
        src, dst = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if block is not None:
            (src if is_local else dst).append(block)
            (dst if is_local else src).append(0)
            if is_local and 0 in dst[:-1]:  # one fault is enough
                src, dst = src[-1:], dst[-1:]
        elif layers is None and tag in (0, 1):
            src, dst = [*src, 0, 1], [*dst, 3, 3]  # the same destination twice
        for call in (sender.side.comm.write_cache, sender.side.comm.write_cache_async):
            error = self._call(
                lambda call=call: call(*self.address, src, dst, layers, tag=tag)  # type: ignore[misc]
            )
            if sender.link is not Link.GOOD and isinstance(error, PeerLost):
                continue  # that was looked at first
            is_refused = isinstance(error, (ValueError, TransferRevoked))
            assert is_refused, f"{src} to {dst}, layers {layers}, tag {tag}: {error!r}"
            if isinstance(error, TransferRevoked):
                assert tag in self.ever_revoked
        self._tell(f"write_nonsense({which}, {src}, {dst}, {layers}, {tag}): {error!r}")

    @rule(which=senders, position=positions)
    def cancel(self, which: int, position: int) -> None:
        sender = self.senders[which]
        if not sender.under_way:
            return
        write = sender.under_way[position % len(sender.under_way)]
        write.errors.add(TransferCancelled)
        assert write.transfer is not None
        write.transfer.cancel()
        self._tell(f"cancel write {write.number}")

    @precondition(lambda self: not self.is_stopped)
    @rule(which=senders, position=positions, is_all=st.booleans())
    def settle(self, which: int, position: int, is_all: bool) -> None:
        sender = self.senders[which]
        if is_all:
            self._settle_all()
        elif sender.under_way:
            self._settle(sender, sender.under_way[position % len(sender.under_way)])

    @rule(which=senders)
    def fill(self, which: int) -> None:
        """New content, where no write reads it."""
        sender = self.senders[which]
        if sender.is_reading():
            return
        sender.side.fill(1000 + self.writes)
        sender.image = Image(sender.side.cache)
        self._tell(f"fill({which})")

    # ---- decode

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule()
    def poll_notices(self) -> None:
        self._take_notices()

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(tag=st.sampled_from(TAGS), is_allowed_again=mostly)
    def revoke_tag(self, tag: int, is_allowed_again: bool) -> None:
        for write in self._all_under_way():
            if write.tag == tag:
                write.errors.add(TransferRevoked)
                write.is_notice_void = True
        self.life.side.revoke(tag)
        at_return = self.life.side.block_digests()
        self._tell(f"revoke_tag({tag})")
        self.revoked.add(tag)
        self.ever_revoked.add(tag)
        self.life.notices.forget(tag=tag)
        for sender in self.senders:
            for write in [write for write in sender.under_way if write.tag == tag]:
                self._settle(sender, write)
        self._check_unchanged_since(at_return)
        if is_allowed_again:
            self.allow(tag)

    @precondition(lambda self: self.is_up and not self.is_stopped and self.revoked)
    @rule(tag=st.sampled_from(TAGS))
    def allow(self, tag: int) -> None:
        self.life.side.allow(tag)
        self.revoked.discard(tag)
        self._tell(f"allow({tag})")

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(which=senders, by_name=st.booleans(), is_back=mostly)
    def revoke_peer(self, which: int, by_name: bool, is_back: bool) -> None:
        """One life of a peer; by its name, all of this process, if one has ever connected."""
        sender = self.senders[which]
        meant = [s for i, s in enumerate(self.senders) if by_name or i == which]
        if by_name and not all(s.link in (Link.GOOD, Link.NONE) for s in meant):
            by_name, meant = False, [sender]  # whom decode knows by name is open then
        if by_name:
            meant = [s for s in meant if s.link is Link.GOOD and s.side.is_connected(self.address)]
        for each in meant:
            each.shake(Link.DOOMED, PeerLost)
            for write in each.under_way:
                write.is_notice_void = True
        if not by_name:
            self.life.side.revoke_life(OUR_NAME, sender.epoch)
        elif meant:
            self.life.side.revoke(OUR_NAME)
        at_return = self.life.side.block_digests()
        self._tell(f"revoke_peer({which}, {by_name}): {[s.link.name for s in self.senders]}")
        for each in meant:
            each.is_sent_away = True
            self.life.notices.forget(epoch=each.epoch)
            for write in list(each.under_way):
                self._settle(each, write)
        self._check_unchanged_since(at_return)
        self._connect_if(is_back, which)

    @precondition(
        lambda self: self.is_up and not self._is_alone() and self.kills < self._most_kills()
    )
    @rule(steps=away_for)
    def kill_decode(self, steps: int) -> None:
        self.kills, self.steps_left = self.kills + 1, steps
        self.stage.kill()
        for life in self.lives:
            life.left_as = None  # it was memory of that process
        self._tell("kill_decode")
        self._gone()

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(steps=away_for)
    def close_decode(self, steps: int) -> None:
        self.steps_left = steps
        self.life.side.close()
        self.life.left_as = self.life.side.block_digests()
        self._tell("close_decode")
        self._gone()

    @precondition(lambda self: not self.is_up)
    @rule()
    def restart_decode(self) -> None:
        """On its port: another process, or, after an orderly end, another life in the same one."""
        self._start_decode(self.address[1])
        self._tell("restart_decode")

    @precondition(lambda self: self.is_up and not self.is_stopped and not self._is_alone())
    @rule(steps=away_for)
    def stop_decode(self, steps: int) -> None:
        self.steps_left = steps
        self.stage.stop()
        self.is_stopped = True
        self._tell("stop_decode")
        for sender in self.senders:
            sender.shake(Link.SHAKEN, PeerLost, NotQuiesced)

    @precondition(lambda self: self.is_stopped)
    @rule(is_long=st.just(False) if not IS_SOAK else st.sampled_from([False, False, True]))
    def continue_decode(self, is_long: bool) -> None:
        """At once, or, in a soak, only when all that waits for it has been given up."""
        for write in self._all_under_way() if is_long else []:
            write.transfer.wait(scaled(PATIENT_S))
        self.stage.resume()
        self.is_stopped = False
        self._tell(f"continue_decode(is_long={is_long})")
        for sender in self.senders:
            sender.shake(Link.SHAKEN, PeerLost, NotQuiesced)
            self._see_lingering_end(sender)

    # ---- what the loopback transport does wrong on request

    @precondition(lambda self: self._is_alone())
    @rule(seconds=st.sampled_from([0.0, 0.002, 0.02]))
    def delay_writes(self, seconds: float) -> None:
        _core.loopback_faults().delay(seconds)
        self._tell(f"delay_writes({seconds})")

    @precondition(lambda self: self._is_alone() and self.is_up)
    @rule(order=plain_orders, pairs=pairs_of_blocks, is_cancelled=st.booleans())
    def write_that_is_dropped(self, order: Order, pairs: Pairs, is_cancelled: bool) -> None:
        self._settle_all()
        sender = self._prepare(order)
        if sender.link is not Link.GOOD or order.tag in self.revoked:
            return
        _core.loopback_faults().drop(1)
        write = self._write_async(order, pairs, scaled(0.02))
        if is_cancelled:
            write.errors.add(TransferCancelled)
            assert write.transfer is not None
            write.transfer.cancel()
        self._settle(sender, write)
        _core.loopback_faults().drop(0)

    @precondition(lambda self: self._is_alone() and self.is_up)
    @rule(order=plain_orders, pairs=pairs_of_blocks, after_bytes=st.integers(0, 1 << 21))
    def write_that_is_cut(self, order: Order, pairs: Pairs, after_bytes: int) -> None:
        """Links made while it lasts break as well."""
        for each in self.senders:
            each.shake(Link.SHAKEN, PeerLost)
        self._prepare(order)
        _core.loopback_faults().cut(after_bytes)
        self._write(order, pairs, PeerLost)
        self._settle_all()
        _core.loopback_faults().clear()
        for each in self.senders:
            each.shake(Link.SHAKEN, PeerLost)

    # ---- comparing

    @invariant()
    def time_passes(self) -> None:
        """Most rules are of use only with a decode that is there."""
        self.steps_left -= 1
        if self.lives and self.steps_left < 0:
            if self.is_stopped:
                self.continue_decode(is_long=False)
            elif not self.is_up:
                self.restart_decode()

    @invariant()
    def memory_is_as_the_model_says(self) -> None:
        if not self.lives or not self.is_up or self.is_stopped:
            return
        self.life.memory.check(self.life.side.block_digests(), self.life.read)

    def teardown(self) -> None:
        failure = sys.exc_info()[1]
        try:
            if not isinstance(failure, Exception):
                failure = None
                self._finish()
        except Exception as error:
            failure = error
            raise
        finally:
            _core.loopback_faults().clear()
            if failure is not None and self.first_failure is None:
                type(self).first_failure = (failure, self.journal)
            if self.lives:
                self.stage.end(self.lives, in_order=failure is None)

    def _finish(self) -> None:
        """Everything comes to its end, and then nothing moves, and no notice is missing."""
        if not self.lives:
            return
        if self.is_stopped:
            self.continue_decode(is_long=False)
        self._settle_all()
        for sender in self.senders:
            self._see_lingering_end(sender)
            assert sender.side.block_digests() == sender.image.digests, "prefill's blocks changed"
        if self.is_up:
            self.memory_is_as_the_model_says()
            self._take_notices()
            eventually(
                self._has_all_notices,
                self.notices_within_s,
                f"notices: {self.life.notices.missing()}",
            )
            assert self.life.side.unquiesced() == []
        for life in self.lives:
            if life.left_as is not None:
                changes = changed_places(life.left_as, life.side.block_digests())
                assert not changes, f"memory of a closed decode changed: {changes[:8]}"

    # ---- private

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def address(self) -> tuple[str, ...]:
        return self.life.side.address

    def _is_alone(self) -> bool:
        return self.wire.transport == "loopback"

    def _connect_if(self, is_back: bool, which: int) -> None:
        if is_back and self.is_up:
            self.connect(which)

    def _most_kills(self) -> int:
        return 3 if IS_SOAK else 1

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

    @staticmethod
    def _call(call: object) -> Exception | None:
        try:
            call()  # type: ignore[operator]
        except Exception as error:
            return error
        return None

    # What a write may come to, when it is called now.
    def _plan(
        self,
        sender: Sender,
        pairs: Pairs,
        layers: range | None,
        tag: int,
        pin: str | None,
    ) -> Write:
        may_succeed, errors = self._outlook(sender, tag, pin)
        self.writes += 1
        write = Write(
            number=self.writes,
            src=[src for src, _ in pairs],
            dst=[dst for _, dst in pairs],
            layers=range(self.shape.layers) if layers is None else layers,
            tag=tag,
            epoch=sender.epoch,
            faults=sender.faults,
            may_succeed=may_succeed,
            errors=errors,
            life=len(self.lives),
        )
        if may_succeed:
            self.life.memory.begin(write.number, sender.image, write.src, write.dst, write.layers)
        return write

    def _outlook(self, sender: Sender, tag: int, pin: str | None) -> tuple[bool, Kinds]:
        is_for_another_life = pin == "wrong" or (pin == "former" and len(self.lives) > 1)
        if sender.link is Link.NONE or not self.is_up or is_for_another_life:
            may_succeed, errors = False, {PeerLost}
        elif tag in self.revoked:
            is_sure = sender.link is Link.GOOD
            may_succeed, errors = (
                False,
                {TransferRevoked} if is_sure else {TransferRevoked, PeerLost},
            )
        elif sender.is_sent_away is not False:
            may_succeed, errors = sender.is_sent_away is None, {PeerLost}
        elif sender.link in (Link.DOOMED, Link.SHAKEN) or self.is_stopped:
            may_succeed, errors = True, {PeerLost}
        else:
            may_succeed, errors = True, set()
        if self.is_stopped:
            errors |= {PeerLost, NotQuiesced, TransferTimeout}
        # A link that is broken, and not seen to be, knows what was revoked before.
        if sender.link in (Link.DOOMED, Link.SHAKEN) and tag in self.ever_revoked:
            errors |= {TransferRevoked}
        return may_succeed, errors

    def _prepare(self, order: Order) -> Sender:
        sender = self.senders[order.which]
        if sender.link is Link.NONE and not self.is_stopped:
            self._connect_if(order.is_connected_first, order.which)
        self.fill(order.which)
        return sender

    def _write(self, order: Order, pairs: Pairs, *also: type[Exception]) -> None:
        sender = self._prepare(order)
        write = self._plan(sender, pairs, order.layers, order.tag, order.pin)
        write.errors |= set(also)
        error = self._call(lambda: self._submit(sender, write, order, is_async=False))
        self._judge(sender, write, error)

    def _write_async(self, order: Order, pairs: Pairs, timeout_s: float | None = None) -> Write:
        sender = self._prepare(order)
        if len(sender.under_way) >= MOST_UNDER_WAY and not self.is_stopped:
            self._settle(sender, sender.under_way[0])
        write = self._plan(sender, pairs, order.layers, order.tag, order.pin)
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
        arguments = (*self.address, write.src, write.dst, order.layers)
        more = {
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
        if sender.faults == write.faults:
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


def machine_on(wire: Wire, pool: Pool, base: type[Machine] = Machine) -> type[Machine]:
    own = {"wire": wire, "pool": pool, "first_failure": None, "outcomes": Counter()}
    return type("Machine", (base,), own)


def play(machine: type[Machine], number: int, profile: settings) -> None:
    """Histories from this seed; raises what went wrong first, and prints how it came to that.

    Hypothesis repeats a failed history before it reports it. That one may end otherwise, as calls
    may: what it says then is printed as well, but it is not what happened.
    """
    print(f"RDMA_KV_MODEL_SEED={number}", flush=True)
    try:
        run_state_machine_as_test(seed(number)(machine), settings=profile)
    except Exception as report:
        if machine.first_failure is None:
            raise
        error, journal = machine.first_failure
        print("\n".join(["the end of the history that failed:", *journal[-60:]]))
        print(f"Hypothesis says: {report!r}", *getattr(report, "__notes__", []), sep="\n")
        raise error from None
