"""The summary of a run in GPU memory, below the table of its layers. GB is 1e9 bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rdma_kv.cli.demo import report
from rdma_kv.cli.demo.events import Fields
from rdma_kv.cli.demo.settings import Settings

from .first_token import FirstToken

CAPTION = (
    "compute and copy (into blocks): the GPU's time, by events; call: the host hands the write "
    "over, ahead of the GPU; transfer: from the last of copy and call until visible to decode; "
    "hidden: of the transfer, while prefill's GPU computed; GB = 1e9 bytes"
)


def as_fields(results: dict[str, Fields]) -> dict[str, Any]:
    """What the JSON has beside the roles' own fields."""
    found: dict[str, Any] = {}
    if prefill := results.get("prefill"):
        found["exposed"] = exposure(prefill)
    if first := FirstToken.of(results):
        found["first_token"] = {**asdict(first), "times_sooner": first.times_sooner}
    return found


def exposure(prefill: Fields) -> dict[str, float]:
    """What the transfers cost: in time of their own, and in compute that they slowed down."""
    rows = prefill["layers"]
    return {
        "transfer_ms": sum(row["transfer_ms"] for row in rows),
        "hidden_ms": sum(row["hidden_ms"] for row in rows),
        "exposed_ms": sum(row["exposed_ms"] for row in rows),
        "tail_ms": prefill["tail_ms"],
        "slowdown_ms": prefill["compute_ms"] - prefill["compute_alone_ms"],
    }


def show(console: Console, settings: Settings, results: dict[str, Fields]) -> None:
    prefill = results.get("prefill")
    if prefill:
        columns = ["compute ms", "copy ms", "call ms", "transfer ms", "hidden ms", "exposed ms"]
        title = "Each layer's write, and what it hid behind"
        console.print(report.layer_table(prefill, columns, title, CAPTION))
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(settings, results):
        table.add_row(name, Text(text))
    console.print(table)


def _rows(settings: Settings, results: dict[str, Fields]) -> list[tuple[str, str]]:
    rows = []
    if prefill := results.get("prefill"):
        rows += _prefill_rows(settings, prefill)
    if decode := results.get("decode"):
        rows.append(("decode", decode["device"]))
    if first := FirstToken.of(results):
        rows += [
            (
                "first token",
                f"{first.via_transfer_ms:.2f} ms after the end of prefill's compute: "
                f"{first.exposed_ms:.2f} until all blocks are here, "
                f"{first.gather_and_step_ms:.2f} to gather them and run one step",
            ),
            (
                "recomputed",
                f"{first.recompute_ms:.2f} ms when decode computes the prompt itself: "
                f"the transfer is {first.times_sooner:.1f} times sooner",
            ),
        ]
    elif decode:
        rows.append(("recomputed", f"{decode['recompute_ms']:.2f} ms for the prompt on decode"))
    return rows


def _prefill_rows(settings: Settings, prefill: Fields) -> list[tuple[str, str]]:
    cost = exposure(prefill)
    share = 100 * cost["hidden_ms"] / cost["transfer_ms"] if cost["transfer_ms"] else 0.0
    moved = f"{prefill['bytes']:,} bytes in {prefill['blocks']} blocks (K and V)"
    return [
        ("source", prefill["source"]),
        ("weights", f"checksum {prefill['weights']}, drawn on each GPU from seed {settings.seed}"),
        (
            "prompt",
            f"{settings.prompt_tokens} tokens in {settings.blocks} blocks of "
            f"{settings.block_tokens}, at random positions on both sides",
        ),
        ("prefill", prefill["device"]),
        ("transport", prefill["path"] or prefill["transport"]),
        ("why", report.why(settings, prefill)),
        ("moved", f"{moved}, {report.gb_per_s(prefill):.2f} GB/s while moving"),
        (
            "compute",
            f"{prefill['compute_ms']:.1f} ms with the writes, {prefill['compute_alone_ms']:.1f} "
            f"without: {cost['slowdown_ms']:+.1f} ms; {prefill['copy_ms']:.2f} of it copying",
        ),
        ("hidden", f"{share:.1f} % of {cost['transfer_ms']:.2f} ms of transfers, behind compute"),
        (
            "exposed",
            f"{cost['exposed_ms']:.2f} ms, the layers' sum; "
            f"the last byte came {cost['tail_ms']:.2f} ms after the end of compute",
        ),
    ]
