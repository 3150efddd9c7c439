"""Fixtures for code that knows nothing of rdma_kv."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from rdma_comm import RDMACommunicator
from support.old_engines import Pair, first


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old engines say nothing but variables: over TCP, as it runs everywhere."""
    for variable in [name for name in os.environ if name.startswith("KVCACHE_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("KVCACHE_TRANSPORT", "tcp")
    monkeypatch.setenv("KVCACHE_SOCKET_IFNAME", "lo")


@pytest.fixture
def opened() -> Iterator[Callable[[RDMACommunicator], RDMACommunicator]]:
    """Closes at the end what is handed to it."""
    with ExitStack() as stack:
        yield lambda comm: stack.enter_context(closing(comm))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(first, stack)
