"""`bench/gpu.py` and `rdma-kv bench --gpu`: how fast blocks move from GPU to GPU."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rdma_kv.cli.bench.gpu import report
from rdma_kv.cli.bench.gpu.breakdown import Breakdown
from rdma_kv.cli.bench.gpu.machine import gpu_line
from rdma_kv.cli.bench.gpu.measure import Bench
from rdma_kv.cli.bench.gpu.report import Row
from rdma_kv.cli.bench.gpu.settings import KIB, PEERS, TABLES, Settings
from rdma_kv.cli.bench.gpu.setup_cost import SetupCost
from rdma_kv.cli.bench.gpu.work import Job
from rdma_kv.cli.bench.machine import machine_line
from rdma_kv.cli.bench.pair import BenchError
from rdma_kv.cli.console import BAD_USAGE, COULD_NOT_RUN, INTERRUPTED, errors, fail

DEFAULTS = Settings()


def gpu(
    source_gpu: Annotated[int, typer.Option(help="Prefill's.")] = DEFAULTS.source_gpu,
    target_gpu: Annotated[int, typer.Option(help="Decode's.")] = DEFAULTS.target_gpu,
    same_gpu: Annotated[
        bool, typer.Option("--same-gpu", help="Both processes on the source GPU.")
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option(help=f"May be given often. Default: {', '.join(TABLES)}."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"none, or others: {', '.join(PEERS)}. Default: those installed."),
    ] = None,
    block_kib: Annotated[
        list[int] | None,
        typer.Option(help="Size of a block; may be given often. Default: 1 to 256."),
    ] = None,
    model_layers: Annotated[
        int, typer.Option(help="Layers of the table model.")
    ] = DEFAULTS.model_layers,
    model_blocks: Annotated[
        int, typer.Option(help="Blocks of each of its tensors, of 32 KiB.")
    ] = DEFAULTS.model_blocks,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="And where the time of the smallest blocks goes.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="For each row; at least 9 repeats are taken.")
    ] = DEFAULTS.seconds,
    row_limit_s: Annotated[
        float, typer.Option("--row-limit", help="Seconds after which a row is given up.")
    ] = DEFAULTS.row_limit_s,
    budget_s: Annotated[
        float, typer.Option("--budget", help="Seconds for all; what comes later is left out.")
    ] = DEFAULTS.budget_s,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="On the CPU: the same code, figures of no use.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Keep all here, row by row.")
    ] = None,
) -> None:
    """Measure writes of 1538 blocks out of 2048 between two processes on two GPUs."""
    settings = Settings(
        source_gpu=source_gpu,
        target_gpu=source_gpu if same_gpu else target_gpu,
        device="cpu" if rehearse else "cuda",
        sizes=tuple(KIB * k for k in block_kib) if block_kib else DEFAULTS.sizes,
        tables=tuple(table) if table else DEFAULTS.tables,
        peers=tuple(name for name in peer if name != "none") if peer else DEFAULTS.peers,
        breakdown=breakdown,
        seconds=seconds,
        row_limit_s=row_limit_s,
        budget_s=budget_s,
        model_layers=model_layers,
        model_blocks=model_blocks,
        bulk_bytes=DEFAULTS.bulk_bytes if not rehearse else 4 << 20,
    )
    run_gpu_bench(settings, json_file, as_json=False)


def run_gpu_bench(settings: Settings, json_file: Path | None, as_json: bool) -> None:
    """Ends the command with status 3 when not a single row of ours was measured."""
    try:
        settings.check()
    except BenchError as error:
        fail(str(error), BAD_USAGE)
    if importlib.util.find_spec("torch") is None:
        fail("the GPU's memory is torch's here: python -m pip install torch")
    lines = [machine_line(), gpu_line(settings.source_gpu, settings.target_gpu)]
    printed = Printed(settings, lines, json_file, is_quiet=as_json)
    try:
        Bench(settings, printed).run()
    except BenchError as error:
        hint = "; where there is one GPU, say --same-gpu" * ("there is no GPU" in str(error))
        fail(f"{error}{hint}")
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    if as_json:
        print(json.dumps(printed.found, indent=2))
    else:
        print("", *report.FOOTNOTES, sep="\n")
    if not printed.has_ours:
        raise typer.Exit(COULD_NOT_RUN)


class Printed:
    """Prints what comes as tables, and keeps it in a file as it comes: a kill loses one row."""

    def __init__(
        self, settings: Settings, machine: list[str], file: Path | None, is_quiet: bool
    ) -> None:
        self.has_ours = False
        self._file = file
        self._is_quiet = is_quiet
        self._rows: list[dict[str, object]] = []
        self._skipped: list[dict[str, str]] = []
        self.found: dict[str, object] = {
            "machine": machine,
            "command": shlex.join(sys.argv),
            "settings": asdict(settings),
            "rows": self._rows,
            "skipped": self._skipped,
        }
        self._print(*machine)
        self._keep()

    def table(self, name: str) -> None:
        self._print("", report.TITLES[name], report.HEADINGS)

    def row(self, row: Row) -> None:
        self.has_ours |= row.what.startswith("rdma_kv")
        self._rows.append(row.as_dict())
        self._print(row.line())
        self._keep()

    def setup(self, cost: SetupCost) -> None:
        self.has_ours = True
        self.found["setup"] = cost.as_dict()
        self._print("", *report.setup_lines(cost))
        self._keep()

    def breakdown(self, job: Job, found: Breakdown) -> None:
        self.has_ours = True
        self.found["breakdown"] = {
            "block_bytes": job.block_bytes,
            **asdict(found),
            "explained": found.explained,
        }
        self._print("", *report.breakdown_lines(job, found))
        self._keep()

    def skipped(self, what: str, why: str) -> None:
        self._skipped.append({"what": what, "why": why})
        errors().print(f"skipped: {what}: {why}")
        self._keep()

    def progress(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"{text:<60}", end="\r", file=sys.stderr, flush=True)

    def _print(self, *lines: str) -> None:
        if not self._is_quiet:
            print(*lines, sep="\n", flush=True)

    def _keep(self) -> None:
        if self._file:
            self._file.write_text(json.dumps(self.found, indent=2))
