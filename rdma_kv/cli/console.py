"""The two consoles: results go to standard output, everything else to standard error."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console

BAD_USAGE = 2
COULD_NOT_RUN = 3
INTERRUPTED = 130


def output() -> Console:
    # Not a terminal: rich assumes 80 columns, too few for our tables.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=110)


def errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def fail(text: str, status: int = COULD_NOT_RUN) -> NoReturn:
    errors().print(text, style="bold red", markup=False)
    raise typer.Exit(status)
