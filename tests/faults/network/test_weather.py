"""A network that loses, delays, repeats, reorders and corrupts packets changes no byte."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from rdma_kv import PeerLost
from support.wire import random_map
from tests.faults.network.cable import DECODE, Cable, tcp_counter
from tests.faults.network.pair import Pair

# What netem does at both ends, and the counters that tell that it really did: of decode's NIC, and
# of TCP. Where there are none netem counts what it threw away, or the clock tells.
WEATHER: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "loss-1": ("loss 1%", "", ()),
    "loss-10": ("loss 10%", "", ()),
    "delay": ("delay 50ms", "", ()),
    "jitter": ("delay 50ms 20ms", "out_of_seq_request", ("TCPOFOQueue",)),
    "duplicate": ("duplicate 5%", "duplicate_request", ("TCPDSACKOldSent", "TCPDSACKOfoSent")),
    "reorder": ("delay 10ms reorder 75%", "out_of_seq_request", ("TCPOFOQueue",)),
    "corrupt": ("corrupt 5%", "out_of_seq_request", ("InCsumErrors",)),
}
# A reliable connection takes packets in order only and sends all behind a gap again: where gaps are
# this frequent its tries may be used up. Then that is said, and it is as after any other loss.
MAY_BE_LOST = ("loss-10", "jitter", "reorder")
DELAY_S = 0.05
TAGS = [3, 3, 3, 4, 5, 6]
# More where it is rare, fewer where it is slow.
BLOCKS = {"loss-1": 48, "jitter": 6}


def write_many(pair: Pair, blocks: int) -> PeerLost | None:
    """Two writes one after the other, each looked at when its notice comes, and six at once.

    Returns what ended them early.
    """
    try:
        write_all(pair, blocks)
    except PeerLost as error:
        return error
    return None


def write_all(pair: Pair, blocks: int) -> None:
    for tag in (1, 2):
        src, dst = random_map(pair.shape, blocks, seed=tag)
        wanted = pair.took(src, dst)
        pair.prefill.write(pair.address, src, dst, tag=tag, timeout_s=60)
        assert pair.decode.received_digests(tag, 30) == wanted
    transfers = []
    for i, tag in enumerate(TAGS):
        run = range(blocks // 6)
        src, dst = [i * 8 + block for block in run], [i * 9 + block for block in run]
        wanted = pair.took(src, dst)
        transfers.append(pair.start(src, dst, tag, 120))
    for transfer in transfers:
        transfer.wait()
    pair.decode.received(3, 30, count=3)
    assert pair.decode.digests() == wanted


@pytest.mark.parametrize("kind", WEATHER)
def test_bytes_are_exact_and_notices_come_once(pair: Pair, cable: Cable, kind: str) -> None:
    netem, nic_counter, tcp_counters = WEATHER[kind]

    def felt() -> int:
        if not nic_counter:
            return cable.dropped()
        if pair.transport == "rdma":
            return DECODE.nic_counter(nic_counter)
        return tcp_counter(*tcp_counters)

    cable.weather(netem)
    before, started = felt(), time.monotonic()

    error = write_many(pair, BLOCKS.get(kind, 24))

    if error is not None:
        assert (pair.transport, kind in MAY_BE_LOST) == ("rdma", True)
        pair.names_path(error)
        assert "transport retry counter exceeded" in str(error)
        assert Counter(tag for tag, *_ in pair.decode.notices()) <= Counter(TAGS)
        pair.is_over(cable, error)
        return
    took_s, how_much = time.monotonic() - started, felt() - before
    assert took_s > 4 * DELAY_S if kind == "delay" else how_much > 0, "it was fair weather"
    cable.mend()
    pair.prefill.write(pair.address, [], [], tag=7)  # behind all that may still be on its way
    pair.decode.received(7, 30)
    assert [notice[0] for notice in pair.decode.notices()] == [4, 5, 6]
