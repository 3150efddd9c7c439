"""Fixtures of the contract."""

from __future__ import annotations

import pytest

from support.fixtures import own_process, peer_process, wire

__all__ = ["own_process", "peer_process", "wire"]


@pytest.fixture
def repeats() -> int:
    """How often to repeat what must hold every time."""
    return 500
