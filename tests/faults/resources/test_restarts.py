"""Peers that end and come back, hundreds of times, leave nothing behind at who stays."""

from __future__ import annotations

import pytest

from support.cache import Shape
from support.flat import assert_stays_flat
from support.forked_side import ForkedSide
from support.patience import SCALE, scaled
from support.wire import Wire

SMALL = Shape(layers=1, blocks=4)
RESTARTS = max(24, round(200 / SCALE**2))
KILLS = max(12, round(60 / SCALE**2))  # of real processes


@pytest.mark.timeout(300)
def test_a_decode_that_closes_and_reopens_leaves_nothing_on_either_side(wire: Wire):
    prefill, witness = wire.prefill(SMALL), wire.decode(SMALL)
    port = "0"

    def cycle(i: int) -> None:
        nonlocal port
        decode = wire.another().decode(SMALL, port=port)
        port = decode.address[1]
        assert prefill.connect(decode.address)
        prefill.write(decode.address, [1], [2], tag=i + 1)
        decode.received(i + 1, 20)
        decode.discard(
            scaled(20)
        )  # a closed communicator that somebody keeps holds a few descriptors

    assert_stays_flat(cycle, RESTARTS, [prefill, witness], is_rdma=wire.transport == "rdma")


@pytest.mark.timeout(300)
@pytest.mark.two_processes
def test_a_decode_that_is_killed_leaves_nothing_at_prefill(wire: Wire):
    prefill = wire.prefill(SMALL)
    port = "0"

    def cycle(i: int) -> None:
        nonlocal port
        with ForkedSide("decode", SMALL, **wire.side("decode"), port=port) as decode:
            port = decode.address[1]
            assert prefill.connect(decode.address)
            prefill.write(decode.address, [1], [2], tag=i + 1)
            decode.call("received", i + 1, 20)
            if i % 2 == 1:  # under way, or as good as
                prefill.comm.write_cache_async(*decode.address, [1], [2], tag=i + 1)
            decode.kill()

    assert_stays_flat(cycle, KILLS, [prefill], is_rdma=wire.transport == "rdma")


@pytest.mark.timeout(300)
@pytest.mark.two_processes
def test_a_prefill_that_is_killed_leaves_nothing_at_decode(wire: Wire):
    decode = wire.decode(SMALL)

    def cycle(i: int) -> None:
        with ForkedSide("prefill", SMALL, **wire.side("prefill")) as prefill:
            assert prefill.call("connect", decode.address)
            prefill.call("write", decode.address, [1], [2], tag=i + 1)
            decode.received(i + 1, 20)
            prefill.kill()

    assert_stays_flat(cycle, KILLS, [decode], is_rdma=wire.transport == "rdma")
