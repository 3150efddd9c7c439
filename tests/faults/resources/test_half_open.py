"""A prefill that falls silent without going: what it holds at decode is released in time."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from support.cache import Shape
from support.forked_side import ForkedSide, stopped
from support.patience import eventually, scaled
from support.side import Side
from support.wire import Wire

SMALL = Shape(layers=1, blocks=4)
TIMEOUT_S = scaled(2.0)
COUNTED = ("descriptors", "threads", "pd", "cq", "qp", "mr")


@pytest.mark.two_processes
def test_what_a_stopped_prefill_holds_is_released_within_the_peer_timeout(wire: Wire, caplog):
    timeout = {"KVCACHE_PEER_TIMEOUT_S": f"{TIMEOUT_S:g}"}
    decode = Side("decode", SMALL, **wire.side("decode", **timeout), seed=1)
    with (
        closing(decode),
        ForkedSide("prefill", SMALL, **wire.side("prefill", **timeout)) as prefill,
    ):

        def counted() -> dict[str, int]:
            usage = decode.usage(is_rdma=wire.transport == "rdma")
            return {name: usage[name] for name in COUNTED if name in usage}

        idle = counted()
        for tag in (1, 2):  # what is made for the first peer, and stays, is no matter
            assert prefill.call("connect", decode.address)
            prefill.call("write", decode.address, [1], [2], tag=tag)
            decode.received(tag, 10)
            if tag == 1:
                prefill.call("disconnect", decode.address)
                eventually(lambda: decode.departed(), 5, "it has gone in order")
                eventually(lambda: counted() == idle, 5, "nothing is left of it")
        assert counted() != idle

        with stopped(prefill):
            gone: list[list[Any]] = []
            eventually(lambda: gone.extend(decode.departed()) or gone, 3 * 2.0, "it is given up")
            assert decode.peer_names() == []
            [[name, _, why, _]] = gone
            assert "sent nothing for" in why
            said = [record.getMessage() for record in caplog.records]
            assert any("sent nothing for" in line and name in line for line in said)
            # Where only the sender can stop itself, its stream is kept, to hear of that.
            if not wire.only_the_sender_stops:
                # Its kernel keeps the control connection, which only it can close.
                held = idle | {"descriptors": idle["descriptors"] + 1}
                eventually(lambda: counted() == held, 2.0, "it holds nothing else any more")
        eventually(lambda: counted() == idle, 5, "nothing is left of it")

        assert prefill.call("connect", decode.address)
        prefill.call("write", decode.address, [1], [3], tag=3)
        decode.received(3, 10)
