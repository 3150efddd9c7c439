"""`bench/isolation.py`: what a sick peer costs the healthy ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rdma_kv import Config, ConfigError, RdmaKvError
from rdma_kv.cli.bench.isolation import report
from rdma_kv.cli.bench.isolation.measure import measure
from rdma_kv.cli.bench.isolation.settings import Settings
from rdma_kv.cli.bench.isolation.sick import KINDS
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.console import BAD_USAGE, INTERRUPTED, fail

DEFAULTS = Settings()


def isolation(
    transport: Annotated[
        list[str] | None,
        typer.Option(help="Measure this one; may be given often. Default: cma, tcp."),
    ] = None,
    sick: Annotated[
        list[str] | None, typer.Option(help=f"May be given often. Default: {', '.join(KINDS)}.")
    ] = None,
    healthy: Annotated[int, typer.Option(help="Healthy decodes.")] = DEFAULTS.healthy,
    rounds: Annotated[int, typer.Option(help="Of calm and sick phases.")] = DEFAULTS.rounds,
    phase: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of one phase.")
    ] = DEFAULTS.phase_s,
    rate: Annotated[float, typer.Option(help="Timed writes a second.")] = DEFAULTS.rate,
    flood_rate: Annotated[
        float, typer.Option(help="Messages or connections a second.")
    ] = DEFAULTS.flood_rate,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Keep the rows here, too.")
    ] = None,
) -> None:
    """Measure writes to healthy decodes with and without a sick one, in alternating phases."""
    settings = Settings(
        transports=tuple(transport) if transport else DEFAULTS.transports,
        kinds=tuple(sick) if sick else tuple(KINDS),
        healthy=healthy,
        rounds=rounds,
        phase_s=phase,
        rate=rate,
        flood_rate=flood_rate,
    )
    if unknown := set(settings.kinds) - set(KINDS):
        fail(f"--sick {unknown.pop()}: allowed: {', '.join(KINDS)}", BAD_USAGE)
    if min(healthy, rounds) < 1 or min(phase, rate, flood_rate) <= 0:
        fail("--healthy and --rounds must be at least 1, times and rates more than 0", BAD_USAGE)
    try:
        for name in settings.transports:
            Config.from_env({**os.environ, "KVCACHE_TRANSPORT": name})
    except ConfigError as error:
        fail(str(error), BAD_USAGE)
    machine = machine_line()
    print(machine, "", report.HEADINGS, sep="\n", flush=True)
    rows = []
    try:
        for name in settings.transports:
            for row in measure(settings, name, _say):
                rows.append(row)
                print(report.line(row, settings.target), flush=True)
    except (BenchError, RdmaKvError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    print("", *report.footnotes(settings), sep="\n")
    if json_file:
        found = {"machine": machine, "rows": [row.as_dict() for row in rows]}
        json_file.write_text(json.dumps(found, indent=2))


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, end="\r", file=sys.stderr, flush=True)
