"""The tables. GB is 1e9 bytes, from the median."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rdma_kv.cli.bench.work import Times

from .breakdown import Breakdown
from .setup_cost import SetupCost
from .work import Job

KIB = 1024
TITLES = {
    "random": "random ids, GPU to GPU",
    "contiguous": "contiguous ids, GPU to GPU: neighbours join, so this is another work",
    "model": "all layers of a model of 70 B parameters in one call, random ids",
    "staged": "random ids over tcp: GPU memory beside host memory",
}
# What section 3 of the targets asks for, random ids between two GPUs, in GB/s by KiB.
TARGETS = {1: 80, 4: 200, 16: 300, 64: 345, 256: 360}

HEADINGS = (
    f"{'what':<17}{'path':<10}{'block_kib':>10}{'layers':>8}{'blocks':>8}{'repeats':>9}"
    f"{'p50_us':>12}{'p99_us':>12}{'gb_per_s':>10}{'of_limit':>10}{'target':>8}"
)
FOOTNOTES = (
    "One call to completion: Python call, bytes visible, return. GB = 1e9 bytes, from the median.",
    "p99 of fewer than 100 repeats is the slowest. Every byte was checked once per row, on the "
    "target GPU.",
    "of_limit: of the bulk copy of this run, one process, timed by the GPU; in the staged table, "
    "of the host-memory row of the same size.",
    "blocks: pairs of ids, each of them written in every layer; in the table of a model K and V.",
)


@dataclass(frozen=True)
class Row:
    """One line of a table; None: does not apply."""

    table: str
    what: str
    path: str
    ids: str
    block_bytes: int | None
    layers: int | None
    blocks: int | None
    bytes: int
    repeats: int
    p50_us: float
    p99_us: float
    gb_per_s: float
    of_limit: float | None
    target_gb_per_s: float | None

    @classmethod
    def of_job(
        cls, table: str, what: str, path: str, job: Job, times: Times, limit: float | None
    ) -> Row:
        rate = times.gb_per_s(job.bytes)
        has_target = table == "random" and what == "rdma_kv"
        return cls(
            table=table,
            what=what,
            path=path,
            ids="contiguous" if job.contiguous else "random",
            block_bytes=job.block_bytes,
            layers=job.layers,
            blocks=job.blocks,
            bytes=job.bytes,
            repeats=times.repeats,
            p50_us=times.p50_us,
            p99_us=times.p99_us,
            gb_per_s=rate,
            of_limit=rate / limit if limit else None,
            target_gb_per_s=TARGETS.get(job.block_bytes // KIB) if has_target else None,
        )

    @classmethod
    def of_bulk(cls, table: str, count: int, times: Times) -> Row:
        rate = times.gb_per_s(count)
        return cls(
            table, "bulk copy", "-", "-", None, None, None, count, times.repeats,
            times.p50_us, times.p99_us, rate, 1.0, None,
        )  # fmt: skip

    def line(self) -> str:
        size = f"{self.block_bytes / KIB:g}" if self.block_bytes else "-"
        of_limit = f"{self.of_limit:.2f}" if self.of_limit is not None else "-"
        target = f"{self.target_gb_per_s:g}" if self.target_gb_per_s else "-"
        return (
            f"{self.what:<17}{self.path or '-':<10}{size:>10}{self.layers or '-':>8}"
            f"{self.blocks or '-':>8}{self.repeats:>9}{self.p50_us:>12.1f}{self.p99_us:>12.1f}"
            f"{self.gb_per_s:>10.2f}{of_limit:>10}{target:>8}"
        )

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def setup_lines(cost: SetupCost) -> list[str]:
    def mib(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    return [
        f"one peer, and {cost.peers - 1} more (pools are not counted)",
        f"{'':<24}{'first':>10}{'each_more':>11}",
        f"{'connect_ms':<24}{cost.first_connect_ms:>10.2f}{cost.further_connect_ms:>11.2f}",
        f"{'first_write_ms':<24}{cost.first_write_ms:>10.2f}{'-':>11}",
        f"{'source_gpu_mib':<24}{mib(cost.source_first_peer_mib):>10}"
        f"{mib(cost.source_further_peer_mib):>11}",
        f"{'target_gpu_mib':<24}{mib(cost.target_first_peer_mib):>10}"
        f"{mib(cost.target_further_peer_mib):>11}",
        f"a communicator that nobody is connected to: source {mib(cost.source_communicator_mib)} "
        f"MiB, target {mib(cost.target_communicator_mib)} MiB",
    ]


def breakdown_lines(job: Job, found: Breakdown) -> list[str]:
    rows = [
        f"{name:<40}{taken / 1e3:>12.2f}{taken / found.total_ns:>9.1%}"
        for name, taken in found.stages_ns.items()
    ]
    total = sum(found.stages_ns.values())
    return [
        f"where the time goes: {job}, the middle half of {found.repeats} writes",
        f"{'stage':<40}{'mean_us':>12}{'share':>9}",
        *rows,
        f"{'sum of the stages':<40}{total / 1e3:>12.2f}{found.explained:>9.1%}",
        f"{'the call, from Python':<40}{found.total_ns / 1e3:>12.2f}{1:>9.1%}",
    ]
