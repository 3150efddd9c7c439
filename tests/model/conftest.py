"""Fixtures of the model-based test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.stage import Pool
from support.peer import PeerProcess
from support.wire import Wire


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as made:
        yield made


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Wire:
    """Settings of one transport; the sides are made by the stage."""

    def no_process() -> PeerProcess:
        raise AssertionError("the stage brings its own processes")

    return Wire(request.param, no_process)
