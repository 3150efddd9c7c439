"""Closing, dropping and forking beside peers that do not answer."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.cache import Shape
from support.forked import exit_status, forked
from support.forked_side import ForkedSide, stopped
from support.patience import eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire
from tests.stream.peers import DecodeProcess, Prefill
from tests.stream.peers import Shape as CoreShape

SMALL = Shape(layers=1, blocks=4)
# What the engine gives one peer to confirm that nothing can land any more (engine/limits.h).
QUIESCE_S = 3.0


@pytest.mark.two_processes
def test_closing_beside_many_stopped_peers_takes_as_long_as_beside_one(wire: Wire):
    prefill = wire.prefill(SMALL)
    with ExitStack() as stack:
        decodes = [
            stack.enter_context(ForkedSide("decode", SMALL, **wire.side("decode")))
            for _ in range(6)
        ]
        for decode in decodes:
            assert prefill.connect(decode.address)
        stack.enter_context(stopped(*decodes))

        started = time.monotonic()
        prefill.close()

        assert time.monotonic() - started < scaled(2 * QUIESCE_S)


@pytest.mark.two_processes
@pytest.mark.parametrize("writes", [0, 3])
def test_writes_to_stopped_peers_are_all_over_when_close_returns(wire: Wire, writes: int):
    prefill = wire.prefill(SMALL)
    with ExitStack() as stack:
        decodes = [
            stack.enter_context(ForkedSide("decode", SMALL, **wire.side("decode")))
            for _ in range(3)
        ]
        for decode in decodes:
            assert prefill.connect(decode.address)
        stack.enter_context(stopped(*decodes))
        transfers = [
            prefill.comm.write_cache_async(*decode.address, [1], [2], tag=i + 1)
            for decode in decodes
            for i in range(writes)
        ]

        prefill.comm.close(timeout_s=scaled(0.5))

        assert all(transfer.done() for transfer in transfers)


def test_a_connect_under_way_is_told_that_the_communicator_was_closed():
    """Something accepts the connection and says nothing: that alone would be a late greeting."""
    prefill = Wire("tcp", PeerProcess).prefill(SMALL)
    ended: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def connect() -> None:
            try:
                prefill.comm.connect("127.0.0.1", silent.getsockname()[1], timeout_s=scaled(3))
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        with silent.accept()[0]:  # held open: it hangs up no sooner
            prefill.close()
            thread.join(scaled(10))

    assert [(type(error), str(error)) for error in ended] == [
        (ValueError, "communicator is closed")
    ]


@pytest.fixture
def core_decode() -> Iterator[DecodeProcess]:
    process = DecodeProcess(CoreShape())
    yield process
    process.stop()


@pytest.fixture
def core_prefill() -> Iterator[Prefill]:
    side = Prefill(CoreShape())
    yield side
    side.engine.close(1.0)


def test_dropping_a_link_to_a_stopped_peer_holds_nobody_up(
    core_decode: DecodeProcess, core_prefill: Prefill
):
    link = core_prefill.open(core_decode, "tcp")
    with core_decode.stopped():
        started = time.monotonic()
        del link
        gc.collect()

        assert time.monotonic() - started < scaled(QUIESCE_S / 3)

    eventually(lambda: core_decode.call("links") == [], 5, "the link is ended all the same")


def test_a_dropped_link_lets_its_writes_finish(core_decode: DecodeProcess, core_prefill: Prefill):
    link = core_prefill.open(core_decode, "tcp")
    transfers = [link.write([i], [i], 0, 2, 1, scaled(10)) for i in range(20)]

    del link
    gc.collect()

    assert core_decode.call("wait_notices", 1, 20, scaled(10)) == 20
    for transfer in transfers:
        transfer.wait()
    del transfers, transfer
    eventually(lambda: core_decode.call("links") == [], 5, "then the link is ended")


def test_a_forked_child_cannot_wait_for_a_write_and_may_close_its_copies(
    core_decode: DecodeProcess, core_prefill: Prefill
):
    link = core_prefill.open(core_decode, "tcp")
    with core_decode.stopped():
        transfer = link.write([1], [2], 0, 1, 1, scaled(20))

        def use_copies() -> None:
            for call in (transfer.wait, transfer.cancel, transfer.fileno):
                with pytest.raises(ValueError, match=r"made by process \d+ and does not survive"):
                    call()
            link.lose("the child says so")
            link.close(1.0)
            core_prefill.engine.close(1.0)

        status = exit_status(forked(use_copies), scaled(10))

    assert status == 0, "the child hangs, or died"
    transfer.wait()
    link.write_wait([1], [3], 0, 1, 1, scaled(10))
    assert link.alive
