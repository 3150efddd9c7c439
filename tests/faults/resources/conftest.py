"""A transport, and a lasting process on its other side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.peer import PeerProcess
from support.wire import Wire


@pytest.fixture(scope="module")
def lasting_process() -> Iterator[PeerProcess]:
    process = PeerProcess()
    yield process
    assert process.close() == 0, "the peer process must end in order"


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    with Wire(request.param, lambda: request.getfixturevalue("lasting_process")) as made:
        yield made


@pytest.fixture
def own_process() -> Iterator[PeerProcess]:
    """A peer process that the test may stop."""
    with PeerProcess() as process:
        yield process
