"""A write that fails is over: from the moment of its error no byte of it lands any more."""

from __future__ import annotations

import time

import pytest

from rdma_kv import NotQuiesced, TransferCancelled, TransferTimeout
from support.cache import Shape
from support.outcome import ending
from support.patience import SCALE, scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of

# Large enough that it cannot be over before it is stopped, and several times what a send queue of
# the rdma transport holds: what was posted to a NIC cannot be called back.
LARGE = Shape(layers=2, blocks=512, block_bytes=max(4 << 10, round((16 << 10) / SCALE)))
EVERY = list(range(LARGE.blocks))
# No neighbours on both sides: one extent per block, so that a link may stop between any two.
TURNED = EVERY[::-1]


def still_works(prefill, decode) -> None:
    """The destination is what it was for a second; then a next write arrives whole."""
    assert not decode.changed_within(1.0), "bytes landed after the error"
    wanted = image_of(decode)
    wanted.take(prefill.cache, EVERY, TURNED, range(2))

    assert prefill.connect(decode.address)  # a stopped write may have cost the link
    prefill.write(decode.address, EVERY, TURNED, tag=99)

    decode.received(99, 30)
    assert decode.digests() == wanted.digests()


def test_a_write_that_misses_its_deadline_is_over(wire: Wire):
    prefill, decode = wire.pair(LARGE)

    with pytest.raises(TransferTimeout, match=":".join(decode.address)):
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, timeout_s=1e-4).wait()

    still_works(prefill, decode)


def test_writes_that_are_cancelled_are_over(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=i + 1) for i in range(12)
    ]

    for transfer in reversed(transfers):  # the last one cannot have begun
        transfer.cancel()
    kinds = [type(ending(transfer)) for transfer in transfers]

    assert set(kinds) <= {type(None), TransferCancelled}  # None: it was too late to stop it
    assert kinds[-1] is TransferCancelled
    assert all(transfer.done() for transfer in transfers)
    still_works(prefill, decode)


def test_a_cancelled_write_sends_no_notice(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=i + 1) for i in range(12)
    ]
    for transfer in transfers:
        transfer.cancel()

    done = [tag for tag, transfer in enumerate(transfers, start=1) if ending(transfer) is None]
    assert prefill.connect(decode.address)
    prefill.write(decode.address, [], [], tag=99)
    decode.received(99, 30)

    assert [notice[0] for notice in decode.notices()] == done


def test_cancelling_what_is_done_changes_nothing(wire: Wire):
    prefill, decode = wire.pair()
    transfer = prefill.comm.write_cache_async(*decode.address, [1], [2])
    transfer.wait()

    transfer.cancel()

    transfer.wait()
    assert transfer.done()


def test_waiting_with_a_deadline_does_not_stop_the_write(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    wanted = image_of(decode)
    wanted.take(prefill.cache, EVERY, TURNED, range(2))
    transfer = prefill.comm.write_cache_async(*decode.address, EVERY, TURNED)

    while not transfer.wait(1e-4):
        pass

    assert decode.digests() == wanted.digests()


def test_disconnecting_under_writes_ends_them(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    transfers = [prefill.comm.write_cache_async(*decode.address, EVERY, TURNED) for _ in range(12)]

    prefill.disconnect(decode.address)

    assert all(transfer.done() for transfer in transfers)
    assert not any(isinstance(ending(transfer), NotQuiesced) for transfer in transfers)
    still_works(prefill, decode)


def test_closing_decode_under_writes_ends_them(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    # Where a processor copies, as many as take longer than closing does.
    count = round(100 * SCALE) if wire.transport in ("cma", "loopback") else 12
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED) for _ in range(count)
    ]

    decode.close()

    assert not decode.changed_within(1.0), "bytes landed after close() had returned"
    error = ending(transfers[-1])
    assert error is not None
    assert ":".join(decode.address) in str(error)


@pytest.mark.two_processes
def test_a_stopped_peer_costs_a_deadline_and_no_more(wire: Wire, own_process: PeerProcess):
    prefill = wire.prefill(LARGE)
    decode = wire.decode(LARGE, process=own_process)
    assert prefill.connect(decode.address)
    own_process.pause()

    started = time.monotonic()
    transfers = [
        prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, tag=i + 1, timeout_s=scaled(1)
        )
        for i in range(4)
    ]
    errors = [ending(transfer) for transfer in transfers]
    assert time.monotonic() - started < scaled(15)
    own_process.resume()

    if wire.transport == "rdma":  # the NIC needs no process to write, nor to announce it
        assert errors == [None] * 4
        decode.received(4, 10)
        return
    assert None not in errors
    # A process that is stopped cannot promise anything; whoever says so must be believed.
    if not any(isinstance(error, NotQuiesced) for error in errors):
        assert not decode.changed_within(1.0), "bytes landed after the error"


@pytest.mark.two_processes
def test_a_stopped_peer_does_not_delay_its_neighbour(wire: Wire, own_process: PeerProcess):
    prefill, neighbour = wire.pair(LARGE)
    stopped = wire.decode(LARGE, process=own_process)
    assert prefill.connect(stopped.address)
    own_process.pause()
    stuck = prefill.comm.write_cache_async(
        *stopped.address, EVERY, TURNED, tag=1, timeout_s=scaled(20)
    )

    for i in range(5):
        started = time.monotonic()
        prefill.write(neighbour.address, EVERY[:2], TURNED[:2], tag=i + 1)
        neighbour.received(i + 1, 5)
        assert time.monotonic() - started < scaled(2)

    assert wire.transport == "rdma" or not stuck.done()  # the NIC needs no process
    own_process.resume()
    stuck.wait()
    stopped.received(1, 10)
