"""Fixtures of the contract."""

from __future__ import annotations

import os

import pytest

from support.fixtures import own_process, peer_process, wire

__all__ = ["own_process", "peer_process", "wire"]


@pytest.fixture
def repeats() -> int:
    """How often to repeat what must hold every time. Sanitizers ask for less: they are slow."""
    return int(os.environ.get("RDMA_KV_TEST_REPEATS", "500"))
