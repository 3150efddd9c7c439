"""Staged links between caches in host memory: all of them but the copies of a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stream.peers import DecodeProcess, Prefill, Shape


@pytest.fixture
def shape() -> Shape:
    return Shape()


@pytest.fixture
def decode(shape: Shape) -> Iterator[DecodeProcess]:
    process = DecodeProcess(shape)
    yield process
    process.stop()


@pytest.fixture
def prefill(shape: Shape) -> Iterator[Prefill]:
    side = Prefill(shape)
    yield side
    side.engine.close(1.0)
