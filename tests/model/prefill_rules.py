"""What prefill's user does: connect, write, cancel, go, come back."""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from model.history import History
from model.orders import (
    BLOCKS,
    SHORT_S,
    Order,
    Pairs,
    all_pairs,
    mostly,
    orders,
    pairs_of_blocks,
    plain_orders,
    positions,
    senders,
    some_pairs,
)
from model.sender import Link
from rdma_kv import HandshakeError, PeerLost, TransferCancelled, TransferRevoked


class PrefillRules(History):
    """Of either of two prefills."""

    # ---- prefill: connections

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(which=senders)
    def connect(self, which: int) -> None:
        self._connect(which)

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
            error = self._call(partial(call, *self.address, src, dst, layers, tag=tag))
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
        self._fill(which)
