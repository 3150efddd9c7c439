"""What the loopback transport does wrong on request."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from model.history import History
from model.orders import Order, Pairs, pairs_of_blocks, plain_orders
from model.sender import Link
from rdma_kv import PeerLost, TransferCancelled, _core
from support.patience import scaled


class FaultRules(History):
    """Delays, drops, cuts."""

    @precondition(lambda self: self.is_one_process)
    @rule(seconds=st.sampled_from([0.0, 0.002, 0.02]))
    def delay_writes(self, seconds: float) -> None:
        _core.loopback_faults().delay(seconds)
        self._tell(f"delay_writes({seconds})")

    @precondition(lambda self: self.is_one_process and self.is_up)
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

    @precondition(lambda self: self.is_one_process and self.is_up)
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
