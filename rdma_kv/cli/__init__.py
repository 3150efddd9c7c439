"""The command `rdma-kv`; each of its commands is a file of its own here."""

from __future__ import annotations

from typing import Annotated

import typer

from rdma_kv import __version__, _core
from rdma_kv.cli.bench_command import bench
from rdma_kv.cli.console import output
from rdma_kv.cli.demo_command import demo
from rdma_kv.cli.doctor_command import doctor

__all__ = ["main"]

app = typer.Typer(
    name="rdma-kv",
    help="Moves paged KV cache blocks between LLM prefill and decode processes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(bench)
app.command()(doctor)


def show_version(wanted: bool) -> None:
    if not wanted:
        return
    output().print(f"rdma_kv {__version__}")
    for name, value in _core.features().items():
        output().print(f"  {name}: {value}")
    raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=show_version,
            is_eager=True,
            help="Show version and build, then stop.",
        ),
    ] = False,
) -> None:
    """What holds for every command."""


def main() -> None:
    app()
