"""Two communicators at the two ends of a cable that faults can be put on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peer import PeerProcess
from support.wire import Wire
from tests.faults.network.cable import ENDS, Cable
from tests.faults.network.pair import Pair


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the cable the ring says so; once rdma was asked for that is a failure instead."""
    asked = [n for text in config.getoption("--transport", []) for n in text.split(",")]
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.vm)
        if "rdma" not in asked and not all(end.is_there for end in ENDS):
            item.add_marker(pytest.mark.skip(reason="no virtual cable; scripts/rdma-vm has one"))


@pytest.fixture(scope="session")
def whole_cable() -> Iterator[Cable]:
    with Cable() as laid:
        yield laid


@pytest.fixture
def cable(whole_cable: Cable) -> Iterator[Cable]:
    """The cable, whole at the start and at the end of a test."""
    yield whole_cable
    whole_cable.mend()


@pytest.fixture(scope="session")
def peer_process() -> Iterator[PeerProcess]:
    """One decode process for all tests."""
    process = PeerProcess()
    yield process
    assert process.close() == 0, "the peer process must end in order"


@pytest.fixture(params=["rdma", "tcp"])
def lane(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A transport that crosses the cable, and communicators on it."""
    with Wire(request.param, lambda: request.getfixturevalue("peer_process")) as made:
        yield made


@pytest.fixture
def pair(lane: Wire, cable: Cable) -> Pair:
    """Prefill at one end, decode in another process at the other, connected."""
    return Pair(lane)
