"""A write takes the bytes that are there, or with `after` those that a kernel has yet to write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpu.late_source import LateSource, late_source
from rdma_kv import NotQuiesced, PeerLost, TransferCancelled, TransferError, TransferTimeout
from support.cache import Cache, Shape
from support.outcome import ending
from support.patience import scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of

SHAPE = Shape(layers=2, blocks=16, block_bytes=4096)
EVERY = list(range(SHAPE.blocks))
TURNED = EVERY[::-1]
LAYERS = range(SHAPE.layers)


class OnlyTheProtocol:
    """A stream of a library that knows no torch."""

    def __init__(self, raw: int) -> None:
        self._raw = raw

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._raw


WAYS: dict[str, Callable[[LateSource], Any]] = {
    "event": lambda source: source.event,
    "raw-event": lambda source: source.event.raw,
    "stream": lambda source: source.stream,
    "stream-protocol": lambda source: OnlyTheProtocol(source.stream.raw),
}


def arrived(decode: Any, source: Cache) -> dict[str, str]:
    wanted = image_of(decode)
    wanted.take(source, EVERY, TURNED, LAYERS)
    return wanted.digests()


def test_without_after_the_bytes_of_before_arrive(gpus: Wire):
    """The race is real: this is what a forgotten `after` costs."""
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        prefill.write(decode.address, EVERY, TURNED)

        assert not source.event.is_done()
        assert decode.digests() == arrived(decode, source.old)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_after_a_kernel_its_bytes_arrive(gpus: Wire, way: Callable[[LateSource], Any]):
    prefill, decode = gpus.pair(SHAPE)
    untouched = decode.digests()

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, tag=1, after=way(source)
        )
        assert not transfer.wait(scaled(0.2))
        assert decode.digests() == untouched
        source.let_go()
        transfer.wait()
        decode.received(1, 10)

        assert decode.digests() == arrived(decode, source.new)


def test_the_plain_call_waits_too(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        writing = [
            prefill.start("write_after", decode.address, EVERY, TURNED, layer, source.event.raw)
            for layer in LAYERS
        ]
        source.let_go()
        for each in writing:
            each.result(scaled(20))

        assert decode.digests() == arrived(decode, source.new)


def test_what_is_over_is_not_waited_for(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)
    with late_source(prefill) as source:
        source.finish()

        for after in (source.event, source.stream):
            prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, after=after).wait()

        assert decode.digests() == arrived(decode, source.new)


def test_the_record_of_the_moment_of_the_call_counts(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill, 0) as first, late_source(prefill, 1) as second:
        transfer = prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, after=first.event)
        first.event.record(second.stream)
        first.let_go()
        assert transfer.wait(scaled(10))

        assert not second.event.is_done()
        assert decode.digests() == arrived(decode, first.new)


def test_an_event_may_go_once_it_was_given(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, after=source.event
        )
        del source.event
        source.let_go()
        transfer.wait()

        assert decode.digests() == arrived(decode, source.new)


def test_many_writes_wait_at_once(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)
    untouched = decode.digests()

    with late_source(prefill) as source:
        transfers = [
            prefill.comm.write_cache_async(
                *decode.address, [src], [dst], layer_idx=layer, tag=7, after=source.event
            )
            for src, dst in zip(EVERY, TURNED, strict=True)
            for layer in LAYERS
        ]
        assert not any(transfer.done() for transfer in transfers)
        assert decode.digests() == untouched
        source.let_go()
        for transfer in transfers:
            transfer.wait()
        decode.received(7, 10, len(transfers))

        assert decode.digests() == arrived(decode, source.new)


def test_who_waits_for_nothing_is_not_held_up(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        waiting = prefill.comm.write_cache_async(
            *decode.address, EVERY[:8], TURNED[:8], after=source.event
        )
        prefill.write(decode.address, EVERY[8:], TURNED[8:], tag=1, timeout_s=10)
        decode.received(1, 10)

        assert not waiting.done()
        wanted = image_of(decode)
        wanted.take(source.old, EVERY[8:], TURNED[8:], LAYERS)
        assert decode.digests() == wanted.digests()
        source.let_go()
        waiting.wait()


# ---- writes that end before they may begin ----


def assert_untouched(decode: Any, source: LateSource) -> None:
    """Nor does it change once the kernel is over that the write waited for."""
    untouched = image_of(decode).digests()
    assert decode.digests() == untouched
    source.finish()
    assert not decode.changed_within(0.3)
    assert decode.digests() == untouched


def assert_next_write_arrives(prefill: Any, decode: Any, source: LateSource) -> None:
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, TURNED, tag=99)
    decode.received(99, 10)
    assert decode.digests() == arrived(decode, source.new)


def test_a_deadline_ends_a_write_that_waits(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, after=source.event, timeout_s=scaled(0.2)
        )
        with pytest.raises(TransferTimeout, match=":".join(decode.address)):
            transfer.wait()

        assert not source.event.is_done()
        assert_untouched(decode, source)
        assert_next_write_arrives(prefill, decode, source)


def test_a_write_that_waits_can_be_cancelled(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        transfers = [
            prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=5, after=after)
            for after in (source.event, source.stream)
        ]
        for transfer in transfers:
            transfer.cancel()
        for transfer in transfers:
            with pytest.raises(TransferCancelled):
                transfer.wait()

        assert not source.event.is_done()
        assert_untouched(decode, source)
        assert decode.notices() == []
        assert_next_write_arrives(prefill, decode, source)


def test_cancelling_one_leaves_the_other_waiting(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        one, other = (
            prefill.comm.write_cache_async(*decode.address, EVERY, to, tag=5, after=source.event)
            for to in (EVERY, TURNED)
        )
        one.cancel()
        source.let_go()
        other.wait()

        with pytest.raises(TransferCancelled):
            one.wait()
        assert decode.digests() == arrived(decode, source.new)


@pytest.mark.parametrize("how", ["disconnect", "close"])
def test_leaving_ends_writes_that_wait(gpus: Wire, how: str):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, after=source.event
        )
        leaving = prefill.start(how, *([decode.address] if how == "disconnect" else []))
        # For 1 s writes may end by themselves. Unmapping may then wait for all that the GPU does,
        # and 3 s later blocks are said to be in danger: it is let go in between.
        gate = threading.Timer(2, source.let_go)
        gate.start()
        leaving.result(scaled(20))
        gate.join()

        outcome = ending(transfer)
        if outcome is None:  # a slow machine: let go before the write was stopped
            assert decode.digests() == arrived(decode, source.new)
            return
        assert isinstance(outcome, TransferError)
        assert not isinstance(outcome, NotQuiesced)
        assert_untouched(decode, source)


def test_a_revoked_write_that_waits_lands_no_more(gpus: Wire):
    prefill, decode = gpus.pair(SHAPE)

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, tag=5, after=source.event
        )
        decode.revoke(5, 10)

        assert_untouched(decode, source)
        with pytest.raises(Exception, match="revoked"):
            transfer.wait()


def test_a_dead_decode_ends_writes_that_wait(gpus: Wire, own_process: PeerProcess):
    prefill = gpus.prefill(SHAPE)
    decode = gpus.decode(SHAPE, process=own_process)
    assert prefill.connect(decode.address)

    with late_source(prefill) as source:
        transfer = prefill.comm.write_cache_async(
            *decode.address, EVERY, TURNED, after=source.event
        )
        own_process.kill()
        with pytest.raises(PeerLost):
            transfer.wait(scaled(20))
        source.finish()

    successor = gpus.decode(SHAPE)
    assert prefill.connect(successor.address)
    prefill.write(successor.address, EVERY, TURNED, tag=1)
    successor.received(1, 10)
