"""A run for people: a line now and then, and tables at its end. GB is 1e9 bytes."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .outcome import Outcome

_PLAIN_EVERY_S = 10.0
_LIVE_EVERY_S = 0.5


class Progress:
    """One line that changes on a terminal; else a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown_at = 0.0
        self._failures_shown = 0
        self._has_begun = False

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, outcome: Outcome) -> None:
        now = time.monotonic()
        has_begun = outcome.tally.writes > 0
        is_due = now - self._shown_at > (_LIVE_EVERY_S if self._live else _PLAIN_EVERY_S)
        if not is_due and has_begun == self._has_begun:
            return
        self._shown_at, self._has_begun = now, has_begun
        for failure in outcome.tally.failures[self._failures_shown :]:
            self._failures_shown += 1
            self._console.print(f"FAILURE: {failure}", style="bold red")
        line = progress_line(outcome)
        if self._live:
            self._live.update(Text(line), refresh=True)
        else:
            self._console.print(line)


def progress_line(outcome: Outcome) -> str:
    tally, seconds = outcome.tally, max(outcome.seconds, 1e-3)
    return (
        f"{outcome.seconds:6.0f} s  {tally.writes / seconds:7.1f} writes/s  "
        f"{tally.bytes_written / seconds / 1e6:7.1f} MB/s  "
        f"{tally.bytes_verified / 1e9:8.2f} GB verified  {tally.errors.total():6d} errors  "
        f"{outcome.faults.total():5d} faults  {tally.failure_count:3d} FAILURES"
    )


def show(console: Console, outcome: Outcome) -> None:
    console.print(_work(outcome))
    console.print(_times(outcome))
    console.print(_events(outcome))
    console.print(_resources(outcome))
    for failure in outcome.tally.failures:
        console.print(f"FAILURE: {failure}", style="bold red")
    console.print(verdict(outcome), style="bold green" if outcome.is_good else "bold red")


def verdict(outcome: Outcome) -> str:
    tally = outcome.tally
    early = ", ended early by Ctrl-C" if outcome.was_interrupted else ""
    if outcome.is_good:
        return (
            f"good: {tally.bytes_verified:,} bytes compared, no corruption; resources: "
            f"{outcome.flatness()}{early}"
        )
    if not tally.failure_count and not tally.writes:
        return f"BAD: nothing was written{early}"
    return f"BAD: {tally.failure_count} failures; resources: {outcome.flatness()}{early}"


def _work(outcome: Outcome) -> Table:
    tally, seconds = outcome.tally, max(outcome.seconds, 1e-3)
    table = Table(title="What was done", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("seconds", f"{outcome.seconds:.0f}")
    table.add_row("seed", str(outcome.settings.seed))
    table.add_row("writes that succeeded", f"{tally.writes:,}")
    table.add_row("writes/s", f"{tally.writes / seconds:.1f}")
    table.add_row("bytes written", f"{tally.bytes_written:,}")
    table.add_row("MB/s", f"{tally.bytes_written / seconds / 1e6:.1f}")
    table.add_row("bytes compared", f"{tally.bytes_verified:,}")
    table.add_row("notices checked by decode", f"{tally.notices_verified:,}")
    table.add_row("cores used", f"{outcome.cpu_s / seconds:.2f}")
    table.add_row("failures (must be 0)", str(tally.failure_count))
    return table


def _times(outcome: Outcome) -> Table:
    table = Table(title="Successful writes of every size, faults included")
    for heading in ("transport", "writes", "p50_us", "p99_us", "most_us"):
        table.add_column(heading, justify="left" if heading == "transport" else "right")
    for transport, row in outcome.times_us().items():
        table.add_row(
            transport,
            f"{row['writes']:.0f}",
            *(f"{row[name]:.0f}" for name in ("p50_us", "p99_us", "most_us")),
        )
    return table


def _events(outcome: Outcome) -> Table:
    table = Table(title="What happened", caption="errors are those that faults must cause")
    for heading in ("what", "kind", "times", "the first one in words"):
        table.add_column(heading, justify="right" if heading == "times" else "left")
    for kind, times in outcome.faults.most_common():
        table.add_row("fault", kind, str(times), "")
    for kind, times in outcome.tally.counts.most_common():
        table.add_row("done", kind, str(times), "")
    for kind, times in outcome.tally.errors.most_common():
        table.add_row("error", kind, str(times), Text(outcome.tally.samples.get(kind, "")))
    return table


def _resources(outcome: Outcome) -> Table:
    table = Table(
        title=f"Resources at checkpoints: {outcome.flatness()}",
        caption="sums over processes, all connected, nobody writing; anon: without mapped files",
    )
    checkpoints = outcome.checkpoints
    if not checkpoints:
        return table
    for name in checkpoints[0].as_dict():
        table.add_column(name.replace("_", " "), justify="right")
    step = max(1, len(checkpoints) // 10)
    shown = [*checkpoints[:-1:step], checkpoints[-1]]
    for checkpoint in shown:
        table.add_row(*(f"{value:g}" for value in checkpoint.as_dict().values()))
    return table
