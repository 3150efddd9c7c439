"""Where K and V come from: the model, or a recording of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from .recording import Recording
from .settings import DemoError, Settings

if TYPE_CHECKING:
    from .model import Llama

NEEDS = ("torch", "transformers")


def check_model_can_run() -> None:
    """Raises DemoError with the command to type when the model's packages are missing."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"the demo runs a real model and needs {' and '.join(missing)}: "
            f"python -m pip install {' '.join(missing)}   "
            "(or --replay FILE, which needs NumPy only)"
        )


def load_model(settings: Settings) -> Llama:
    check_model_can_run()
    from .model import Llama  # late: it imports torch, which takes seconds

    return Llama(settings)


def open_source(settings: Settings) -> tuple[Llama | Recording, Settings]:
    """The source, and the settings that hold for it."""
    if settings.replay:
        recording = Recording(settings.replay)
        return recording, recording.parameters(settings)
    return load_model(settings), settings
