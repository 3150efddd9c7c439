"""The fake driver, in the test's process for support.cuda alone, and in a neighbour's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cuda.neighbour import Neighbour
from support import cuda

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def libraries() -> Path:
    """Builds the fake where that is needed; returns the folder of its libraries."""
    subprocess.run(
        [ROOT / "tests/fake_cuda/build"], check=True, env={**os.environ, "MAX_JOBS": "2"}
    )
    return ROOT / "build/fake_cuda"


@pytest.fixture(scope="module")
def fake(libraries: Path) -> Iterator[None]:
    """Whatever driver is installed: support.cuda speaks with the fake one."""
    with cuda.instead(str(libraries / "libcuda.so.1")):
        assert cuda.count() == 2
        yield


@pytest.fixture
def neighbour(libraries: Path, fake: None) -> Iterator[Neighbour]:
    """Another process on the same GPUs."""
    with Neighbour(libraries) as made:
        yield made
