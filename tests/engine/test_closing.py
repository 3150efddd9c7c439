"""Closing an engine while others use it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from rdma_kv import PeerLost, _core
from support.cache import Shape
from support.joined import Node
from support.patience import eventually, scaled

SHAPE = Shape(layers=1, blocks=4, block_bytes=64)
EVERY = list(range(SHAPE.blocks))


def test_whoever_closes_second_returns_when_all_has_ended():
    faults = _core.loopback_faults()
    faults.delay(600.0)
    try:
        with Node(SHAPE, 1) as prefill, Node(SHAPE, 2) as decode:
            transfer = prefill.open(decode).write(EVERY, EVERY, 0, 1, 0, scaled(30))
            first = threading.Thread(target=prefill.engine.close, args=(scaled(20),))
            first.start()
            eventually(lambda: is_closing(prefill), 5, "the first one has begun")

            started = time.monotonic()
            prefill.engine.close(scaled(0.2))

            assert transfer.done()
            assert isinstance(transfer.error(), PeerLost)
            # The earlier deadline counts, for both.
            assert time.monotonic() - started < scaled(6)
            first.join(scaled(6))
            assert not first.is_alive()
    finally:
        faults.clear()


def test_what_breaks_a_link_that_is_being_closed_is_still_the_cause():
    faults = _core.loopback_faults()
    faults.delay(scaled(0.5))
    faults.cut(0)
    try:
        with Node(SHAPE, 1) as prefill, Node(SHAPE, 2) as decode:
            link = prefill.open(decode)
            transfer = link.write(EVERY, EVERY, 0, 1, 0, scaled(30))

            link.close(scaled(20))

            assert "cut by LoopbackFaults" in str(transfer.error())
    finally:
        faults.clear()


def is_closing(node: Node) -> bool:
    try:
        node.engine.wait_notices(1, 1, 0.0)
    except ValueError:
        return True
    return False


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Python's threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_an_engine_may_be_closed_while_others_ask_it_for_its_links(hasty_threads):
    """The window is narrow: it takes some hundred tries to hit it."""
    for attempt in range(400):
        close_under_questions(0.001 * (attempt % 4))


def close_under_questions(after_s: float) -> None:
    node = Node(SHAPE, 1)
    geometry = node.engine.layout.geometry
    refused = []

    def ask(*, is_peer: bool) -> None:
        try:
            while True:
                node.engine.inbound_links()
                if is_peer:
                    _core.tcp_accept(node.engine, "prefill", 7, geometry, 1)
                    node.engine.end_epoch(7, "asked for")
        except ValueError as error:
            refused.append(str(error))

    threads = [
        threading.Thread(target=ask, kwargs={"is_peer": i == 0}, daemon=True) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    time.sleep(after_s)

    node.engine.close(0.0)

    for thread in threads:
        thread.join(scaled(10))
        assert not thread.is_alive(), "a call waits for a thread that has ended"
    assert len(refused) == len(threads)
    assert all("closed" in why for why in refused)
