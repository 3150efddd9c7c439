"""A notice comes once, after its bytes, in order, and by every way of waiting for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from support.cache import Shape
from support.patience import eventually, scaled
from support.wire import Wire, image_of, random_map


def test_what_the_receiver_sees_at_the_notice_is_all_of_it(wire: Wire, repeats: int):
    shape = Shape(layers=2, blocks=24, block_bytes=16 << 10)
    prefill, decode = wire.pair(shape)
    wanted = image_of(decode)

    for tag in range(1, repeats + 1):
        prefill.fill(seed=tag)
        src, dst = random_map(shape, 8, seed=tag)
        wanted.take(prefill.cache, src, dst, range(2))
        seen = decode.start("received_digests", tag, 30)
        prefill.write(decode.address, src, dst, tag=tag)

        assert seen.result(scaled(40)) == wanted.digests(), f"torn in round {tag}"


def test_bytes_are_there_when_the_call_returns_even_without_a_notice(wire: Wire, repeats: int):
    shape = Shape(layers=2, blocks=24, block_bytes=4 << 10)
    prefill, decode = wire.pair(shape)
    wanted = image_of(decode)

    for round_ in range(repeats // 10):
        prefill.fill(seed=round_)
        src, dst = random_map(shape, 8, seed=round_)
        wanted.take(prefill.cache, src, dst, range(2))
        prefill.write(decode.address, src, dst)

        assert decode.digests() == wanted.digests(), f"late in round {round_}"


def test_a_notice_tells_tag_and_peer(wire: Wire):
    prefill, decode = wire.pair()

    prefill.write(decode.address, [1], [2], tag=2**32 - 1)
    decode.received(2**32 - 1, 10)
    prefill.write(decode.address, [1], [2], tag=1)
    notices: list[list[object]] = []
    eventually(lambda: notices.extend(decode.notices()) or notices, 10, "a notice")

    [(tag, epoch, peer)] = notices
    assert tag == 1
    assert epoch == prefill.comm.stats().epoch
    assert "127.0.0.1" in peer


def test_tag_0_gives_no_notice(wire: Wire):
    prefill, decode = wire.pair()

    prefill.write(decode.address, [1], [2], tag=0)
    prefill.write(decode.address, [1], [2], tag=5)
    decode.received(5, 10)

    assert decode.notices() == []


def test_an_empty_write_delivers_its_notice(wire: Wire):
    prefill, decode = wire.pair()

    prefill.write(decode.address, [], [], tag=9)

    decode.received(9, 10)


def test_the_same_tag_many_times_is_counted(wire: Wire):
    prefill, decode = wire.pair()

    for _ in range(5):
        prefill.write(decode.address, [1], [2], tag=4)

    decode.received(4, 10, 3)
    decode.received(4, 10, 2)
    assert decode.notices() == []


def test_a_count_that_is_not_reached_takes_none(wire: Wire):
    prefill, decode = wire.pair()
    for _ in range(2):
        prefill.write(decode.address, [1], [2], tag=4)

    with pytest.raises(Exception, match=r"2.*3|3.*2"):
        decode.received(4, 0.3, 3)

    decode.received(4, 10, 2)


def test_tags_arrive_in_the_order_of_the_writes(wire: Wire):
    prefill, decode = wire.pair()
    tags = list(range(1, 61))

    transfers = [
        prefill.comm.write_cache_async(*decode.address, [tag % 32], [tag % 32], tag=tag)
        for tag in tags
    ]
    for transfer in transfers:
        transfer.wait()

    assert decode.notices_by_descriptor(len(tags), 10) == tags


def test_waiting_for_one_tag_leaves_the_others(wire: Wire):
    prefill, decode = wire.pair()
    for tag in (1, 2, 3):
        prefill.write(decode.address, [1], [2], tag=tag)

    decode.received(3, 10)
    decode.received(1, 10)

    assert [notice[0] for notice in decode.notices()] == [2]


def test_two_threads_wait_for_different_tags(wire: Wire):
    prefill, decode = wire.pair()
    waiting = [decode.start("received", tag, 20) for tag in (1, 2)]

    prefill.write(decode.address, [1], [2], tag=2)
    waiting[1].result(scaled(20))
    assert not waiting[0].done()
    prefill.write(decode.address, [1], [2], tag=1)

    waiting[0].result(scaled(20))


def test_notices_by_async_for(wire: Wire):
    prefill, decode = wire.pair()
    seen = decode.start("notices_by_iteration", 4, 20)

    for tag in (11, 12, 13, 14):
        prefill.write(decode.address, [1], [2], tag=tag)

    assert seen.result(scaled(25)) == [11, 12, 13, 14]


def test_polling_never_blocks(wire: Wire):
    decode = wire.decode(Shape())

    started = time.monotonic()
    assert decode.notices() == []

    assert time.monotonic() - started < scaled(1)


def test_a_wait_without_a_write_ends_at_its_deadline_and_says_so(wire: Wire):
    _, decode = wire.pair()

    started = time.monotonic()
    with pytest.raises(Exception, match="77"):
        decode.received(77, 0.2)

    assert scaled(0.2) <= time.monotonic() - started < scaled(5)


@pytest.mark.parametrize("tag", [-1, 2**32, 1.5, "7", None, True])
def test_a_tag_that_cannot_be_is_refused(wire: Wire, tag: object):
    prefill, decode = wire.pair()
    before = decode.digests()

    with pytest.raises((ValueError, TypeError), match="tag"):
        prefill.comm.write_cache_async(*decode.address, [1], [2], tag=tag)

    assert decode.digests() == before


@pytest.mark.parametrize(("tag", "count"), [(0, 1), (2**32, 1), (-1, 1), (1, 0), (1, -1)])
def test_waiting_for_what_cannot_come_is_refused(wire: Wire, tag: int, count: int):
    decode = wire.decode(Shape())

    with pytest.raises(ValueError, match=r"tag|count"):
        decode.received(tag, 1, count)


def test_a_transfer_can_be_awaited(wire: Wire):
    prefill, decode = wire.pair()
    wanted = image_of(decode)
    wanted.take(prefill.cache, [1, 2, 3], [7, 8, 9], range(3))

    async def write_three() -> list[bool]:
        transfers = [
            prefill.comm.write_cache_async(*decode.address, [src], [dst], tag=dst)
            for src, dst in ((1, 7), (2, 8), (3, 9))
        ]
        await asyncio.wait_for(asyncio.gather(*transfers), scaled(20))
        return [transfer.done() for transfer in transfers]

    assert asyncio.run(write_three()) == [True] * 3
    assert decode.digests() == wanted.digests()


def test_a_transfer_tells_what_it_did(wire: Wire):
    prefill, decode = wire.pair()

    transfer = prefill.comm.write_cache_async(
        *decode.address, [1, 2, 3, 9], [5, 6, 7, 20], layer_idx=range(1, 3)
    )
    transfer.wait()

    assert transfer.done()
    assert (transfer.stats.blocks, transfer.stats.runs) == (4, 2)
    assert transfer.stats.bytes == 4 * 2 * 2 * 256  # blocks, layers, K and V, block bytes
    assert transfer.stats.total_us > 0
