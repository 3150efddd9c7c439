"""What only GPU memory has. Needs a GPU, or the fake driver of scripts/lib/fake_gpu_tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import cuda
from support.fixtures import own_process, peer_process
from support.route import ROUTES
from support.wire import Wire

__all__ = ["own_process", "peer_process"]

HERE = Path(__file__).parent
USUAL = ("cuda_ipc",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if cuda.count() == 0:
            item.add_marker(pytest.mark.skip(reason="no GPU, and no fake CUDA driver either"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Routes that begin on a GPU, of those asked for by --transport."""
    if "gpus" not in metafunc.fixturenames:
        return
    asked = [
        name for given in metafunc.config.getoption("--transport") for name in given.split(",")
    ]
    routes = [name for name in asked if ROUTES[name].prefill_memory == "device"]
    metafunc.parametrize("gpus", list(dict.fromkeys(routes)) or USUAL, indirect=True)


@pytest.fixture
def gpus(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A transport whose prefill sides, at least, are on a GPU."""
    with Wire(
        request.param,
        lambda: request.getfixturevalue("peer_process"),
        same_gpu=request.config.getoption("--same-gpu"),
    ) as made:
        yield made


@pytest.fixture
def fake_driver() -> None:
    """For what only the fake driver can tell."""
    if not cuda.is_fake():
        pytest.skip("seen through the fake CUDA driver only")
