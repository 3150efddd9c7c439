"""Fixtures of the faults: what the contract has, and processes by the dozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.fixtures import own_process, peer_process, wire
from support.nursery import Nursery
from support.peer import PeerProcess

__all__ = ["own_process", "peer_process", "wire"]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture
def born(nursery: Nursery) -> Iterator[Callable[[], PeerProcess]]:
    """Makes peer processes that the test may stop and kill; ends those that are left."""
    with ExitStack() as cleanup:

        def bear() -> PeerProcess:
            return cleanup.enter_context(PeerProcess(nursery.fork()))

        yield bear
