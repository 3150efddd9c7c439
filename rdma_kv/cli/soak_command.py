"""`bench/soak.py`: writes under faults, every byte checked."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Annotated

import typer

from rdma_kv import Config, ConfigError, RdmaKvError
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.bench.soak import report
from rdma_kv.cli.bench.soak.conductor import Conductor
from rdma_kv.cli.bench.soak.settings import SABOTAGE_VARIABLE, Settings
from rdma_kv.cli.console import BAD_USAGE, errors, fail, output

DEFAULTS = Settings()
BAD = 1


def soak(
    seconds: Annotated[float, typer.Option(help="How long to write.")] = DEFAULTS.seconds,
    hours: Annotated[float | None, typer.Option(help="The same, in hours.")] = None,
    peers: Annotated[int, typer.Option(help="Decode processes.")] = DEFAULTS.peers,
    prefills: Annotated[int, typer.Option(help="Prefill processes.")] = DEFAULTS.prefills,
    threads: Annotated[int, typer.Option(help="Writers in each of them.")] = DEFAULTS.threads,
    transport: Annotated[
        list[str] | None,
        typer.Option(help="Each write takes one of these; may be given often. Default: cma, tcp."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all dice; else a new one, printed.")] = None,
    faults: Annotated[bool, typer.Option(help="Kill, stop, disturb.")] = True,
    fault_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="From one fault to the next, on average.")
    ] = DEFAULTS.fault_every_s,
    checkpoint_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="From one look at everything to the next.")
    ] = DEFAULTS.checkpoint_every_s,
    load: Annotated[
        float, typer.Option(help="About this share of the machine's cores may be used.")
    ] = DEFAULTS.load,
    layers: Annotated[int, typer.Option(help="Layers of the cache.")] = DEFAULTS.layers,
    blocks: Annotated[int, typer.Option(help="Blocks of each decode.")] = DEFAULTS.blocks,
    block_bytes: Annotated[int, typer.Option(help="Size of a block.")] = DEFAULTS.block_bytes,
    hang: Annotated[
        float, typer.Option(metavar="SECONDS", help="A writer that stands still so long hangs.")
    ] = DEFAULTS.hang_s,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Keep everything here, too.")
    ] = None,
) -> None:
    """Write to many decodes under kills, stops and strangers, and compare every byte.

    Exit status: 0 good; 1 a corruption, a hang, a lost notice, an error that nothing explains, or
    resources that grow; 2 wrong arguments; 3 could not run. Ctrl-C ends it in order.
    """
    settings = Settings(
        seconds=hours * 3600 if hours is not None else seconds,
        peers=peers,
        prefills=prefills,
        threads=threads,
        transports=tuple(transport) if transport else DEFAULTS.transports,
        seed=seed if seed is not None else random.randrange(1 << 31),
        faults=faults,
        fault_every_s=fault_every,
        checkpoint_every_s=checkpoint_every,
        load=load,
        layers=layers,
        blocks=blocks,
        block_bytes=block_bytes,
        hang_s=hang,
        sabotage=os.environ.get(SABOTAGE_VARIABLE, ""),
    )
    try:
        for name in settings.transports:
            Config.from_env({**os.environ, "KVCACHE_TRANSPORT": name})
    except ConfigError as error:
        fail(str(error), BAD_USAGE)
    if problem := settings.problem():
        fail(problem, BAD_USAGE)
    console = output()
    console.print(machine_line())
    console.print(
        f"seed {settings.seed}: {settings.peers} decodes, {settings.prefills} prefill processes "
        f"with {settings.threads} writers each, over {', '.join(settings.transports)}; "
        f"load {settings.load:g}"
    )
    try:
        with report.Progress(errors()) as progress:
            outcome = Conductor(settings, progress.show).run()
    except (RdmaKvError, OSError, ValueError) as error:
        fail(f"{type(error).__name__}: {error}")
    report.show(console, outcome)
    if json_file:
        json_file.write_text(json.dumps(outcome.as_dict(), indent=2))
    raise typer.Exit(0 if outcome.is_good else BAD)
