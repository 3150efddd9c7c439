"""Connecting, going, coming back, and what is left when a communicator is closed."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rdma_kv import ConfigError, PeerLost, TransferError
from support.cache import Shape
from support.outcome import first_failure
from support.patience import SCALE, eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of


def test_connecting_twice_is_connecting_once(wire: Wire):
    prefill, decode = wire.pair()

    assert prefill.connect(decode.address)

    assert prefill.is_connected(decode.address)
    assert len(prefill.comm.stats().peers) == 1


def test_ports_may_be_numbers(wire: Wire):
    prefill, decode = wire.pair()
    host, port = decode.address

    assert prefill.comm.connect(host, int(port))
    assert prefill.comm.is_connected(host, int(port))
    prefill.comm.write_cache(host, int(port), [1], [1], 0)


def test_nobody_is_connected_before_connect(wire: Wire):
    prefill, decode = wire.prefill(Shape()), wire.decode(Shape())

    assert not prefill.is_connected(decode.address)


def test_disconnect_and_connect_again(wire: Wire):
    prefill, decode = wire.pair()
    wanted = image_of(decode)

    for i in range(5):
        prefill.disconnect(decode.address)
        assert not prefill.is_connected(decode.address)
        with pytest.raises(Exception, match="connect"):
            prefill.write(decode.address, [i], [i + 10])
        assert prefill.connect(decode.address)
        prefill.write(decode.address, [i], [i + 20], tag=i + 1)
        decode.received(i + 1, 10)
        wanted.take(prefill.cache, [i], [i + 20], range(3))

    assert decode.digests() == wanted.digests()


def test_disconnecting_a_stranger_is_harmless(wire: Wire):
    prefill, decode = wire.pair()

    prefill.disconnect(("127.0.0.1", "1"))

    assert prefill.is_connected(decode.address)


def test_another_decode_on_the_same_port_is_another_peer(wire: Wire):
    prefill, first = wire.pair()
    port = first.address[1]
    first.close()
    eventually(lambda: not prefill.is_connected(first.address), 15, "the first one is gone")
    second = wire.decode(Shape(), port=port)
    wanted = image_of(second)
    wanted.take(prefill.cache, [1, 2], [3, 4], range(3))

    assert prefill.connect(second.address)
    prefill.write(second.address, [1, 2], [3, 4], tag=1)
    second.received(1, 10)

    assert second.digests() == wanted.digests()


@pytest.mark.two_processes
def test_a_killed_decode_is_noticed_and_its_successor_welcome(wire: Wire, own_process: PeerProcess):
    prefill = wire.prefill(Shape())
    first = wire.decode(Shape(), process=own_process)
    assert prefill.connect(first.address)
    prefill.write(first.address, [1], [2])
    own_process.kill()

    lost = first_failure(
        lambda: prefill.write(first.address, [1], [2], timeout_s=10), PeerLost, within_s=10
    )
    assert ":".join(first.address) in str(lost)
    eventually(lambda: not prefill.is_connected(first.address), 10, "the dead one is noticed")

    with PeerProcess() as successor:
        second = wire.decode(Shape(), process=successor, port=first.address[1])
        wanted = image_of(second)
        wanted.take(prefill.cache, [1, 2], [3, 4], range(3))
        started = time.monotonic()
        assert prefill.connect(second.address)
        assert time.monotonic() - started < scaled(3)
        prefill.write(second.address, [1, 2], [3, 4], tag=1)
        second.received(1, 10)
        assert second.digests() == wanted.digests()


@pytest.mark.two_processes
def test_a_write_meant_for_a_dead_peer_never_lands_in_its_successor(
    wire: Wire, own_process: PeerProcess
):
    """Its block ids were granted by another life; there they may belong to somebody else."""
    prefill = wire.prefill(Shape())
    first = wire.decode(Shape(), process=own_process)
    assert prefill.connect(first.address)
    granted_by = first.epoch()
    own_process.kill()

    with PeerProcess() as successor:
        second = wire.decode(Shape(), process=successor, port=first.address[1])
        for call in (prefill.comm.write_cache, prefill.comm.write_cache_async):
            with pytest.raises(PeerLost, match="restarted"):
                call(*first.address, [1], [2], peer_epoch=granted_by)

        assert second.digests() == image_of(second).digests()


@pytest.mark.two_processes
def test_a_decode_killed_under_writes_fails_them(wire: Wire, own_process: PeerProcess):
    shape = Shape(layers=2, blocks=64, block_bytes=4 << 10)
    prefill = wire.prefill(shape)
    decode = wire.decode(shape, process=own_process)
    assert prefill.connect(decode.address)
    every = list(range(shape.blocks))

    def write() -> None:
        prefill.write(decode.address, every, every, timeout_s=20)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(first_failure, write, PeerLost, 30) for _ in range(4)]
        eventually(lambda: prefill.comm.stats().transfers_done >= 8, 20, "writes flow")
        own_process.kill()
        killed = time.monotonic()
        lost = [future.result(scaled(40)) for future in writing]

    assert time.monotonic() - killed < scaled(10)
    for error in lost:
        assert ":".join(decode.address) in str(error)


@pytest.mark.two_processes
def test_a_killed_peer_does_not_harm_its_neighbour(wire: Wire, own_process: PeerProcess):
    prefill, neighbour = wire.pair()
    victim = wire.decode(Shape(), process=own_process)
    assert prefill.connect(victim.address)
    own_process.kill()

    for i in range(50):
        prefill.write(neighbour.address, [i % 32], [i % 32], tag=i + 1, timeout_s=5)
        neighbour.received(i + 1, 5)

    assert prefill.is_connected(neighbour.address)


def test_closing_decode_fails_later_writes(wire: Wire):
    prefill, decode = wire.pair()
    decode.close()

    error = first_failure(
        lambda: prefill.write(decode.address, [1], [2], timeout_s=5), TransferError, within_s=10
    )

    assert ":".join(decode.address) in str(error)


def test_closing_prefill_leaves_decode_serving_others(wire: Wire):
    prefill, decode = wire.pair()
    other = wire.prefill(Shape())
    assert other.connect(decode.address)
    prefill.close()

    other.write(decode.address, [1], [2], tag=1)

    decode.received(1, 10)


@pytest.mark.parametrize(
    "call",
    [
        lambda side, to: side.comm.connect(*to),
        lambda side, to: side.comm.write_cache(*to, [1], [2], 0),
        lambda side, to: side.comm.write_cache_async(*to, [1], [2]),
        lambda side, to: side.comm.stats(),
    ],
    ids=["connect", "write_cache", "write_cache_async", "stats"],
)
def test_calls_after_close_say_that_it_is_closed(wire: Wire, call):
    prefill, decode = wire.pair()
    prefill.close()
    prefill.close()  # harmless

    with pytest.raises(Exception, match="closed"):
        call(prefill, decode.address)


@pytest.mark.parametrize("call", [("received", 1, 5), ("notices",)], ids=["received", "poll"])
def test_calls_after_close_of_decode_say_so_too(wire: Wire, call):
    decode = wire.decode(Shape())
    decode.close()

    with pytest.raises(Exception, match="closed"):
        getattr(decode, call[0])(*call[1:])


def test_close_wakes_who_waits(wire: Wire):
    decode = wire.decode(Shape())
    waiting = decode.start("received", 1, 60)

    decode.close()

    with pytest.raises(Exception, match="closed"):
        waiting.result(scaled(10))


def test_with_closes(wire: Wire):
    prefill, decode = wire.pair()

    with prefill.comm as inside:
        assert inside.is_connected(*decode.address)

    with pytest.raises(Exception, match="closed"):
        prefill.write(decode.address, [1], [2])


@pytest.mark.one_transport
def test_a_port_in_use_is_named(wire: Wire):
    decode = wire.decode(Shape())

    with pytest.raises(ConfigError, match=decode.address[1]):
        wire.decode(Shape(), port=decode.address[1])


def test_an_idle_pair_burns_no_processor(wire: Wire):
    prefill, decode = wire.pair()
    prefill.write(decode.address, [1], [2], tag=1)
    decode.received(1, 10)
    waiting = decode.start("received", 2, 60)
    seconds = 2.0

    before = prefill.processor_seconds(), decode.processor_seconds()
    time.sleep(seconds)  # not for luck: this is the time that is measured
    after = prefill.processor_seconds(), decode.processor_seconds()

    for start, end in zip(before, after, strict=True):
        assert end - start < 0.02 * seconds * SCALE
    prefill.write(decode.address, [1], [2], tag=2)
    waiting.result(scaled(10))


def test_nothing_is_left_behind(wire: Wire):
    """Communicators come and go without leaking threads or descriptors."""

    def one_life() -> None:
        with wire.another() as inner:
            prefill, decode = inner.pair(Shape(layers=1, blocks=4))
            prefill.write(decode.address, [1], [2], tag=1)
            decode.received(1, 10)

    one_life()
    one_life()
    witness = wire.prefill(Shape(layers=1, blocks=4))
    gc.collect()
    before = witness.open_things()
    for _ in range(5):
        one_life()

    gc.collect()
    eventually(lambda: witness.open_things() <= before, 5, f"back to {before} open things")
