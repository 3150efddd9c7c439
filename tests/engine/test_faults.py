"""The engine over a link that drops, delays and cuts on request."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from rdma_kv import PeerLost, TransferCancelled, TransferTimeout, _core
from support.cache import Cache, Shape
from support.joined import Node
from support.patience import SCALE, eventually, scaled

SHAPE = Shape(layers=2, blocks=64, block_bytes=4096)
EVERY = list(range(SHAPE.blocks))
WHOLE = 64 * 4096 * 2 * 2  # bytes of one write of every block
FOREVER = 600.0


@pytest.fixture
def faults() -> Iterator[_core.LoopbackFaults]:
    made = _core.loopback_faults()
    made.clear()
    yield made
    made.clear()


@pytest.fixture
def prefill() -> Iterator[Node]:
    with Node(SHAPE, 1) as node:
        yield node


@pytest.fixture
def decode() -> Iterator[Node]:
    with Node(SHAPE, 2) as node:
        yield node


@pytest.fixture
def link(prefill: Node, decode: Node, faults: _core.LoopbackFaults) -> _core.Peer:
    return prefill.open(decode)


def write(link: _core.Peer, *, tag: int = 0, timeout_s: float = 30) -> _core.Transfer:
    return link.write(EVERY, EVERY, 0, SHAPE.layers, tag, scaled(timeout_s))


def arrived(prefill: Node) -> dict[str, str]:
    wanted = Cache(SHAPE, 2)
    wanted.take(prefill.cache, EVERY, EVERY, range(2))
    return wanted.digests()


def changes(node: Node, seconds: float) -> bool:
    first = node.cache.digests()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if node.cache.digests() != first:
            return True
    return False


def test_without_faults_bytes_and_notice_arrive(link, prefill, decode):
    write(link, tag=3).wait()

    assert decode.engine.wait_notices(3, 1, scaled(5)) == 1
    assert decode.cache.digests() == arrived(prefill)


def test_a_dropped_write_times_out_and_is_over(link, prefill, decode, faults):
    faults.drop(1)

    started = time.monotonic()
    with pytest.raises(TransferTimeout, match=f"127.0.0.1:{decode.port}"):
        write(link, tag=1, timeout_s=0.3).wait()

    assert scaled(0.3) <= time.monotonic() - started < scaled(6)
    assert not changes(decode, 1.0)
    assert decode.engine.take_notices() == []


def test_a_dropped_write_times_out_when_nobody_waits_for_it(link, decode, faults):
    faults.drop(1)
    transfer = write(link, timeout_s=0.3)

    eventually(transfer.done, 6, "the engine sees to deadlines by itself")

    assert isinstance(transfer.error(), TransferTimeout)


def test_the_path_serves_again_after_a_drop(link, prefill, decode, faults):
    faults.drop(1)
    with pytest.raises(TransferTimeout):
        write(link, timeout_s=0.2).wait()

    again = link if link.alive else prefill.open(decode)
    write(again, tag=2).wait()

    assert decode.engine.wait_notices(2, 1, scaled(5)) == 1
    assert decode.cache.digests() == arrived(prefill)


def test_a_delayed_write_is_not_done_before_its_time(link, prefill, decode, faults):
    faults.delay(0.3)
    started = time.monotonic()
    transfer = write(link, tag=1)

    assert not transfer.wait(0.05)
    assert not transfer.done()
    assert decode.engine.take_notices() == []
    transfer.wait()

    assert time.monotonic() - started >= 0.3
    assert decode.cache.digests() == arrived(prefill)


def test_a_delayed_write_can_be_cancelled_and_is_over(link, decode, faults):
    faults.delay(FOREVER)
    transfer = write(link, tag=1)

    transfer.cancel()
    with pytest.raises(TransferCancelled):
        transfer.wait()

    assert not changes(decode, 1.0)
    assert decode.engine.take_notices() == []


@pytest.mark.parametrize("after_bytes", [0, 1, 4096, WHOLE // 2, WHOLE - 1])
def test_a_cut_loses_the_peer_and_names_the_first_cause(link, decode, faults, after_bytes):
    faults.cut(after_bytes)
    transfers = [write(link, tag=i + 1) for i in range(3)]

    causes = []
    for transfer in transfers:
        with pytest.raises(PeerLost, match=f"127.0.0.1:{decode.port}") as lost:
            transfer.wait()
        causes.append(str(lost.value))

    assert not link.alive
    assert str(link.failure()) in causes[0] or str(link.failure()) in causes[1]
    assert len({cause.split("failed: ")[-1] for cause in causes}) == 1  # one first cause for all
    assert not changes(decode, 1.0)


def test_writes_after_a_cut_are_refused_at_once(link, decode, faults):
    faults.cut(0)
    with pytest.raises(PeerLost):
        write(link).wait()

    started = time.monotonic()
    with pytest.raises(PeerLost, match="down"):
        write(link)

    assert time.monotonic() - started < scaled(1)


def test_a_new_link_after_a_cut_works(link, prefill, decode, faults):
    faults.cut(WHOLE // 2)
    with pytest.raises(PeerLost):
        write(link).wait()
    faults.clear()

    write(prefill.open(decode), tag=1).wait()

    assert decode.engine.wait_notices(1, 1, scaled(5)) == 1
    assert decode.cache.digests() == arrived(prefill)


def test_losing_a_peer_says_why(link, decode, faults):
    faults.delay(FOREVER)
    transfer = write(link)

    link.lose("its heartbeat stopped")

    with pytest.raises(PeerLost, match="its heartbeat stopped"):
        transfer.wait()
    assert not changes(decode, 0.5)


def test_a_neighbour_is_unharmed(link, prefill, decode, faults):
    faults.drop(1)
    stuck = write(link, timeout_s=20)
    with Node(SHAPE, 2) as neighbour:
        other = prefill.open(neighbour)

        for tag in range(1, 50):
            write(other, tag=tag, timeout_s=5).wait()

        assert neighbour.engine.wait_notices(49, 1, scaled(5)) == 1
        assert neighbour.cache.digests() == arrived(prefill)
        assert not stuck.done()
        stuck.cancel()
        with pytest.raises(TransferCancelled):
            stuck.wait()


def test_closing_ends_what_is_under_way(link, prefill, decode, faults):
    faults.delay(FOREVER)
    transfer = write(link)

    started = time.monotonic()
    prefill.engine.close(0.1)

    assert time.monotonic() - started < scaled(6)
    assert transfer.done()
    with pytest.raises(PeerLost, match="closed"):
        transfer.wait()
    assert not changes(decode, 0.5)


def test_decode_ends_an_epoch_and_nothing_lands_after(link, prefill, decode, faults):
    faults.delay(0.2)
    transfer = write(link)

    decode.engine.end_epoch(prefill.engine.epoch, "a newer life came")
    before = decode.cache.digests()

    with pytest.raises(PeerLost):
        transfer.wait()
    assert not changes(decode, 0.6)
    assert decode.cache.digests() == before


def test_an_idle_engine_sleeps(link):
    write(link).wait()

    before = time.process_time()
    time.sleep(1.0)  # the time that is measured

    assert time.process_time() - before < 0.02 * SCALE


def test_many_writes_under_way_all_end(link, prefill, decode, faults):
    faults.delay(0.02)
    counter = itertools.count(1)

    transfers = [write(link, tag=next(counter)) for _ in range(200)]
    for transfer in reversed(transfers):
        transfer.wait()

    assert [tag for tag, _, _ in decode.engine.take_notices()] == list(range(1, 201))
    assert decode.cache.digests() == arrived(prefill)
