"""The two consoles: results go to standard output, everything else to standard error."""

from __future__ import annotations

from typing import Any, NoReturn

import typer
from rich.console import Console

BAD_USAGE = 2
COULD_NOT_RUN = 3
INTERRUPTED = 130


# No markup and no emoji: what is printed holds arguments, paths and what peers said, as they are.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


def output() -> Console:
    # Not a terminal: rich assumes 80 columns, too few for our tables.
    console = Console(**_PLAIN)
    return console if console.is_terminal else Console(**_PLAIN, width=110)


def errors() -> Console:
    return Console(**_PLAIN, stderr=True, soft_wrap=True)


def fail(text: str, status: int = COULD_NOT_RUN) -> NoReturn:
    errors().print(text, style="bold red")
    raise typer.Exit(status)
