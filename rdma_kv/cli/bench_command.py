"""`rdma-kv bench`: how fast blocks move on this machine."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from rdma_kv import Config, ConfigError, RdmaKvError
from rdma_kv.cli.bench import host
from rdma_kv.cli.bench.gpu.settings import Settings as GpuSettings
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.console import BAD_USAGE, INTERRUPTED, errors, fail
from rdma_kv.cli.gpu_command import run_gpu_bench


def bench(
    local: Annotated[
        bool, typer.Option("--local", help="Both processes on this machine, host memory.")
    ] = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Two GPUs of this machine; bench/gpu.py has more flags.")
    ] = False,
    same_gpu: Annotated[
        bool, typer.Option("--same-gpu", help="With --gpu: both processes on GPU 0.")
    ] = False,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="With --gpu: where the time of small blocks goes.")
    ] = False,
    transport: Annotated[
        list[str] | None,
        typer.Option(help="With --local: this one; may be given often. Default: cma, tcp."),
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
    """Measure writes of 1538 blocks out of 2048, beside their limits in the same run."""
    if local == gpu:
        fail(
            "say --local (host memory) or --gpu: both processes are on this machine. "
            "Between two machines is not there yet.",
            BAD_USAGE,
        )
    if (same_gpu or breakdown) and not gpu:
        fail("--same-gpu and --breakdown need --gpu", BAD_USAGE)
    sizes = [1024 * k for k in block_kib] if block_kib else list(host.SIZES)
    if min(sizes) < 1024 or not seconds > 0:
        fail("--block-kib must be at least 1 and --seconds more than 0", BAD_USAGE)
    if gpu:
        if transport:
            fail("--transport is for --local: GPU memory takes what `auto` finds", BAD_USAGE)
        between = GpuSettings(
            target_gpu=0 if same_gpu else 1,
            sizes=tuple(sizes),
            breakdown=breakdown,
            seconds=seconds,
        )
        run_gpu_bench(between, None, as_json)
        return
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
