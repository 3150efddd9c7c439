"""A run's outcome: as tables for people, as one JSON object for programs. GB is 1e9 bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .events import Fields
from .settings import CPU, Settings
from .verdict import Verdict


def as_json(settings: Settings, results: dict[str, Fields], verdict: Verdict | None) -> str:
    report: dict[str, Any] = {"settings": asdict(settings), **results}
    if verdict:
        report["verdict"] = asdict(verdict)
    if "prefill" in results:
        report["gb_per_s"] = gb_per_s(results["prefill"])
    if settings.device != CPU:
        from .gpu.report import as_fields  # late: it builds on this module

        report |= as_fields(results)
    return json.dumps(report, indent=2)


def show_prefill(console: Console, settings: Settings, prefill: Fields) -> None:
    console.print(_layers(settings, prefill))
    console.print(_summary(settings, prefill))


def show_verdict(console: Console, verdict: Verdict) -> None:
    console.print(verdict.text, style="bold green" if verdict.is_good else "bold red")


def _layers(settings: Settings, prefill: Fields) -> Table:
    columns = ["copy ms", "call ms", "transfer ms"]
    caption = (
        "copy: into blocks; call: handing the write over, both on the compute thread; "
        "transfer: from the call until visible to decode; GB = 1e9 bytes"
    )
    title = "Each layer's write"
    if not settings.replay:  # there is no compute in a replay, so nothing to hide behind
        columns = ["compute ms", *columns, "hidden ms", "exposed ms"]
        caption = f"compute: until the next layer's K and V; {caption}"
        caption += "; hidden: of the transfer, while the model computed"
        title += ", and what it hid behind"
    return layer_table(prefill, columns, title, caption)


def layer_table(prefill: Fields, columns: list[str], title: str, caption: str) -> Table:
    """A row for each layer; what a column shows is its heading with underscores."""
    table = Table(title=title, caption=caption)
    for heading in ("layer", *columns, "MB", "GB/s"):
        table.add_column(heading, justify="right")
    for row in prefill["layers"]:
        table.add_row(
            str(row["layer"]),
            *(f"{row[heading.replace(' ', '_')]:.2f}" for heading in columns),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['gb_per_s']:.2f}",
        )
    return table


def _summary(settings: Settings, prefill: Fields) -> Table:
    transfer_ms = sum(row["transfer_ms"] for row in prefill["layers"])
    hidden_ms = sum(row["hidden_ms"] for row in prefill["layers"])
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("source", prefill["source"])
    table.add_row(
        "prompt",
        f"{settings.prompt_tokens} tokens in {settings.blocks} blocks of {settings.block_tokens}, "
        "at random positions on both sides",
    )
    # As Text: what a peer says is not markup.
    table.add_row("transport", Text(prefill["path"] or prefill["transport"]))
    table.add_row("why", Text(why(settings, prefill)))
    table.add_row(
        "moved",
        f"{prefill['bytes']:,} bytes in {prefill['blocks']} blocks (K and V), "
        f"{gb_per_s(prefill):.2f} GB/s while moving",
    )
    if not settings.replay:
        share = 100 * hidden_ms / transfer_ms if transfer_ms else 0.0
        compute = f"{prefill['compute_ms']:.1f} ms, and {prefill['copy_ms']:.1f} ms copying"
        table.add_row("compute", compute)
        hidden = f"{share:.1f} % of {transfer_ms:.2f} ms of transfers, behind compute"
        table.add_row("hidden", hidden)
        call_ms, tail_ms = prefill["call_ms"], prefill["tail_ms"]
        exposed = f"{call_ms + tail_ms:.2f} ms: {call_ms:.2f} in calls that held compute up"
        table.add_row("exposed", f"{exposed}, {tail_ms:.2f} after its end")
    if "recorded" in prefill:
        table.add_row("recorded", prefill["recorded"])
    return table


def why(settings: Settings, prefill: Fields) -> str:
    if settings.transport != "auto":
        return f"asked for: {settings.transport}"
    return "\n".join(prefill["reasons"]) or "the first in the order of preference"


def gb_per_s(prefill: Fields) -> float:
    busy_ms: float = prefill["busy_ms"]
    return prefill["bytes"] / (busy_ms * 1e6) if busy_ms else 0.0
