"""Throughput by block size, host memory, two processes of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from rdma_kv import HandshakeError

from .limits import iperf3_gb_per_s, memcpy_call
from .pair import checked_pair
from .work import WRITTEN_BLOCKS, Times, Work, take_times

SIZES = tuple(1024 * k for k in (1, 4, 16, 64, 256))
TRANSPORTS = ("cma", "tcp")

HEADINGS = (
    f"{'what':<10}{'ids':<12}{'block_kib':>10}{'blocks':>8}{'repeats':>9}"
    f"{'p50_us':>12}{'p99_us':>12}{'gb_per_s':>10}{'of_memcpy':>11}"
)
FOOTNOTES = (
    "One call to completion: Python call, bytes visible, return. GB = 1e9 bytes, from the median.",
    "p99 of fewer than 100 repeats is the slowest. Every byte was checked once per row.",
    "memcpy: one thread gathers the same blocks within one process (NumPy take).",
    "iperf3: one TCP stream over loopback, from one buffer of that size again and again.",
)


@dataclass(frozen=True)
class Row:
    """One line of the table; None: not measured that way."""

    what: str
    ids: str
    block_bytes: int
    repeats: int | None
    p50_us: float | None
    p99_us: float | None
    gb_per_s: float
    of_memcpy: float

    def line(self) -> str:
        p50, p99 = (f"{t:.1f}" if t is not None else "-" for t in (self.p50_us, self.p99_us))
        return (
            f"{self.what:<10}{self.ids:<12}{self.block_bytes / 1024:>10g}{WRITTEN_BLOCKS:>8}"
            f"{self.repeats or '-':>9}{p50:>12}{p99:>12}"
            f"{self.gb_per_s:>10.2f}{self.of_memcpy:>11.2f}"
        )

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "blocks": WRITTEN_BLOCKS}


def measure(
    transports: Sequence[str],
    sizes: Sequence[int],
    contiguous: bool,
    seconds: float,
    skipped: Callable[[str], None],
) -> Iterator[Row]:
    """Rows of one table as they come: random and contiguous ids are never mixed in one.

    `skipped` hears of each row that could not be measured, with the reason.
    """
    ids = "contiguous" if contiguous else "random"
    for size in sizes:
        work = Work(size, contiguous)
        copied = take_times(memcpy_call(work), seconds)
        memcpy = copied.gb_per_s(work.bytes)
        yield _row("memcpy", ids, work, copied, memcpy)
        rate = iperf3_gb_per_s(size)
        if rate is None:
            skipped(f"iperf3, {size // 1024} KiB: not installed, or it failed")
        else:
            yield Row("iperf3", "-", size, None, None, None, rate, rate / memcpy)
        for transport in transports:
            try:
                with checked_pair(transport, work) as write:
                    times = take_times(write, seconds)
                yield _row(transport, ids, work, times, memcpy)
            except HandshakeError as error:
                skipped(f"{transport}, {ids} ids, {size // 1024} KiB: {error}")


def _row(what: str, ids: str, work: Work, times: Times, memcpy: float) -> Row:
    rate = times.gb_per_s(work.bytes)
    return Row(
        what, ids, work.block_bytes, times.repeats, times.p50_us, times.p99_us, rate, rate / memcpy
    )
