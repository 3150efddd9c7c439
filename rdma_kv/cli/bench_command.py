"""`rdma-kv bench`: how fast blocks move on this machine."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from rdma_kv import Config, ConfigError, RdmaKvError
from rdma_kv.cli.bench import host
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.console import BAD_USAGE, INTERRUPTED, errors, fail


def bench(
    local: Annotated[
        bool, typer.Option("--local", help="Both processes on this machine, host memory.")
    ] = False,
    transport: Annotated[
        list[str] | None,
        typer.Option(help="Measure this one; may be given often. Default: cma, tcp."),
    ] = None,
    block_kib: Annotated[
        list[int] | None,
        typer.Option(help="Size of a block; may be given often. Default: 1 to 256."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="For each row; at least 9 repeats are taken.")
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure writes of 1538 blocks out of 2048, beside memcpy and iperf3 in the same run."""
    if not local:
        fail(
            "say --local: both processes on this machine. Between two machines is not there yet.",
            BAD_USAGE,
        )
    sizes = [1024 * k for k in block_kib] if block_kib else list(host.SIZES)
    if min(sizes) < 1024 or not seconds > 0:
        fail("--block-kib must be at least 1 and --seconds more than 0", BAD_USAGE)
    chosen = transport or list(host.TRANSPORTS)
    try:
        for name in chosen:
            Config.from_env({**os.environ, "KVCACHE_TRANSPORT": name})
    except ConfigError as error:
        fail(str(error), BAD_USAGE)
    machine = machine_line()
    rows = []
    skipped: list[str] = []
    if not as_json:
        print(machine, flush=True)
    try:
        for contiguous in (False, True):
            if not as_json:
                print("", host.HEADINGS, sep="\n", flush=True)
            for row in host.measure(chosen, sizes, contiguous, seconds, skipped.append):
                rows.append(row)
                if not as_json:
                    print(row.line(), flush=True)
    except (BenchError, RdmaKvError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    if as_json:
        table = [row.as_dict() for row in rows]
        print(json.dumps({"machine": machine, "rows": table, "skipped": skipped}, indent=2))
    else:
        print("", *host.FOOTNOTES, sep="\n")
    for reason in skipped:
        errors().print(f"skipped: {reason}")
