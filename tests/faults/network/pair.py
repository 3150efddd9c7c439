"""Prefill at one end of the cable and decode at the other, and what must hold after a fault."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from rdma_kv import NotQuiesced, Transfer, TransferError
from support.cache import Shape
from support.outcome import ending
from support.patience import eventually
from support.wire import Wire, image_of
from tests.faults.network.cable import DECODE, PREFILL, Cable

SHAPE = Shape(layers=2, blocks=128, block_bytes=4096)  # 2 MiB
EVERY = list(range(SHAPE.blocks))
TURNED = EVERY[::-1]  # no neighbours on both sides: a link may stop between any two blocks

# A whole write takes two seconds then, so that a fault finds it under way.
SLOW = "rate 8mbit"
BYTES_BEFORE_A_FAULT = 256 << 10

# What ends a write may add to its deadline: 0.5 s to stop it, 3 s to quiesce its link; and the
# machine is slow.
GRACE_S = 8.0


class Pair:
    """Two connected sides, with a cable between them."""

    def __init__(self, wire: Wire, shape: Shape = SHAPE, **settings: str) -> None:
        self.transport = wire.transport
        self.shape = shape
        self.prefill = wire.prefill(shape, KVCACHE_RDMA_NICS=PREFILL.nic, **settings)
        ours = {"KVCACHE_RDMA_NICS": DECODE.nic, "KVCACHE_SOCKET_IFNAME": DECODE.interface}
        self.decode = wire.decode(shape, **ours, **settings)
        self.address = (DECODE.address, self.decode.address[1])
        assert self.prefill.connect(self.address)
        assert self.prefill.transport_to(self.address) == wire.transport
        self.wanted = image_of(self.decode)  # what decode's memory must be; see took()

    def start(self, src: list[int], dst: list[int], tag: int, timeout_s: float) -> Transfer:
        return self.prefill.comm.write_cache_async(
            *self.address, src, dst, tag=tag, timeout_s=timeout_s
        )

    def took(self, src: list[int], dst: list[int]) -> dict[str, str]:
        """The digests that decode must show after a write, and all those before it."""
        self.wanted.take(self.prefill.cache, src, dst, range(self.shape.layers))
        return self.wanted.digests()

    def start_and_hit(self, cable: Cable, fault: Callable[[], None], timeout_s: float) -> Transfer:
        """A write of everything with tag 2 that a fault finds in its middle."""
        cable.weather(SLOW, PREFILL)
        before = PREFILL.sent_bytes
        transfer = self.start(EVERY, TURNED, 2, timeout_s)
        while PREFILL.sent_bytes - before < BYTES_BEFORE_A_FAULT:
            time.sleep(0.001)
        fault()
        assert not transfer.done(), "the write was over before the fault"
        return transfer

    def fails(self, transfer: Transfer) -> TransferError:
        """Its error, which must say who, where and why."""
        error = ending(transfer)
        assert error is not None, "the write succeeded over a broken cable"
        self.names_all(error)
        return error

    def names_all(self, error: TransferError) -> None:
        """Of a write of everything."""
        assert "128 blocks (local 0..127, remote 0..127) of layers 0..1" in str(error)
        self.names_path(error)

    def names_path(self, error: TransferError) -> None:
        text = str(error)
        assert f"to {':'.join(self.address)}" in text
        if self.transport == "rdma":
            assert f"{PREFILL.nic} port 1 GID 1 (::ffff:{PREFILL.address})" in text
            assert f"to ::ffff:{DECODE.address}" in text
        else:
            assert re.search(rf"{PREFILL.address}:\d+ -> {DECODE.address}:\d+", text)
        assert not re.search("flush(ed)? err", text, re.IGNORECASE), "that is no first cause"

    def is_over(self, cable: Cable, error: TransferError) -> None:
        """Nothing of the failed write lands, on the whole cable either; the next one works."""
        if not isinstance(error, NotQuiesced):
            assert self.prefill.comm.unquiesced() == []
            assert not self.decode.changed_within(0.5), "bytes landed after the error"
        cable.mend()
        # What might still land was announced, and is listed until it cannot any more.
        eventually(lambda: self.prefill.comm.unquiesced() == [], 15, "it is quiesced at last")
        assert not self.decode.changed_within(2.0), "bytes landed after the error"
        assert self.decode.notices() == []
        self.works()

    def works(self) -> None:
        """A write of everything arrives whole, and so does its notice."""
        assert self.prefill.connect(self.address)  # a lost write has cost the link
        wanted = self.took(EVERY, TURNED)

        self.prefill.write(self.address, EVERY, TURNED, tag=99)

        assert self.decode.received_digests(99, 30) == wanted
        assert self.decode.notices() == []
