"""A made-up machine: its libibverbs and its libcuda are FAKES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.fake_machine import Machine, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """See build()."""
    return build(tmp_path_factory.mktemp("fakes"))


@pytest.fixture
def machine(built: dict[str, Path], tmp_path: Path) -> Callable[..., Machine]:
    """Makes one: machine("old verbs", "cuda", FAKE_EXPORT=801)."""

    def make(verbs: str = "verbs", cuda: str = "cuda", **knobs: object) -> Machine:
        values = {name: str(value) for name, value in knobs.items()}
        return Machine(tmp_path, [built[verbs], built[cuda]], values)

    return make
