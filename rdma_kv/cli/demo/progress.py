"""The progress bars, fed with events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from .events import Emit, Fields
from .settings import Settings


class Bars:
    """One bar for each role; which one an event moves is in its name, "ROLE EVENT"."""

    def __init__(self, progress: Progress, settings: Settings, roles: tuple[str, ...]) -> None:
        self._progress = progress
        totals = {
            "prefill": ("computes and writes, layers", settings.layers),
            "decode": ("generates, tokens", settings.generate),
            "reference": ("one process, tokens", settings.generate),
        }
        self._bars: dict[str, TaskID] = {}
        for role in roles:
            what, total = totals[role]
            if settings.replay and role == "decode":
                what, total = "compares, result", 1
            self._bars[role] = progress.add_task(f"{role:<9} {what}", total=total, start=False)

    def show(self, name: str, fields: Fields) -> None:
        role, event = name.split()
        if role in self._bars:  # its clock starts when its process first says something
            self._progress.start_task(self._bars[role])
        if event in ("layer", "token"):
            self._progress.update(self._bars[role], completed=fields["done"], total=fields["of"])
        elif event == "result" and "differing" in fields:
            self._progress.update(self._bars[role], completed=1)
        elif event in ("said", "stage"):
            self._progress.console.print(f"{role}: {fields['text']}", style="dim")


@contextmanager
def bars(console: Console, settings: Settings, *roles: str) -> Iterator[Emit]:
    columns = (
        TextColumn("{task.description:<37}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, settings, roles).show
