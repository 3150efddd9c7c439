"""Fixtures that several rings use: a transport, and processes to speak with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.peer import PeerProcess
from support.wire import Wire


@pytest.fixture(scope="session")
def peer_process() -> Iterator[PeerProcess]:
    """One decode process for all tests that leave it alive."""
    process = PeerProcess()
    yield process
    assert process.close() == 0, "the peer process must end in order"


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A transport, and communicators on it that are closed after the test."""
    with Wire(
        request.param,
        lambda: request.getfixturevalue("peer_process"),
        same_gpu=request.config.getoption("--same-gpu"),
    ) as made:
        yield made


@pytest.fixture
def own_process() -> Iterator[PeerProcess]:
    """A peer process that the test may kill."""
    with PeerProcess() as process:
        yield process
