"""The roles, in host memory or on a GPU: what each is made of is imported when it is played."""

from __future__ import annotations

from collections.abc import Callable

from .events import Emit, Fields
from .settings import CPU, Settings


def play_prefill(
    settings: Settings, find_peer: Callable[[], tuple[str, str]], emit: Emit
) -> Fields:
    if settings.device == CPU:
        from .prefill import run_prefill
    else:
        from .gpu.prefill import run_prefill
    return run_prefill(settings, find_peer, emit)


def play_decode(settings: Settings, port: str, emit: Emit) -> Fields:
    if settings.device == CPU:
        from .decode import run_decode
    else:
        from .gpu.decode import run_decode
    return run_decode(settings, port, emit)


def play_reference(settings: Settings, emit: Emit) -> Fields:
    if settings.device == CPU:
        from .decode import run_reference
    else:
        from .gpu.decode import run_reference
    return run_reference(settings, emit)
