"""`rdma-kv doctor`: what holds here, what can be used, and why the rest cannot."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from rdma_kv import Config, ConfigError
from rdma_kv.cli import gpu_direct, probes
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.console import BAD_USAGE, fail, output


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the effective configuration, this machine's means, and each transport's state."""
    try:
        config = Config.from_env()
    except ConfigError as error:
        fail(str(error), BAD_USAGE)
    machine = machine_line()
    facts = {**probes.facts(), **gpu_direct.facts(config)}
    transports = probes.transports()
    if as_json:
        report = {
            "machine": machine,
            "configuration": [row._asdict() for row in config.table()],
            "facts": facts,
            "transports": [asdict(t) for t in transports],
        }
        print(json.dumps(report, indent=2))
        return
    console = output()
    console.print(machine)
    console.print(_configuration(config))
    console.print(_pairs("This machine", facts))
    console.print(_transports(transports))
    console.print(
        "A connection uses the first transport that BOTH sides can open: the peer decides too."
    )


def _configuration(config: Config) -> Table:
    table = Table(
        "variable", "value", "from", "meaning", title="Configuration", title_justify="left"
    )
    for row in config.table():
        style = "" if row.origin == "default" else "bold"
        table.add_row(row.variable, Text(row.value), row.origin, row.meaning, style=style)
    return table


def _pairs(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(value))
    return table


def _transports(transports: list[probes.Probe]) -> Table:
    table = Table(title="Transports, in the order that auto prefers", title_justify="left")
    table.add_column("transport")
    table.add_column("here")
    table.add_column("why", overflow="fold")
    for probe in transports:
        table.add_row(
            probe.transport,
            Text("usable", "green") if probe.is_usable else Text("no", "yellow"),
            Text(probe.reason),
        )
    return table
