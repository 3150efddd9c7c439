"""What came out, in one sentence and one exit status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EQUAL = 0
DIFFERENT = 1  # with --corrupt: as it must be, and it was noticed
UNNOTICED = 4  # --corrupt changed nothing: this demo would miss a real corruption


@dataclass(frozen=True)
class Verdict:
    exit_status: int
    text: str
    first_difference: int | None = None

    @property
    def is_good(self) -> bool:
        return self.exit_status == EQUAL


def judge_tokens(got: list[int], want: list[int], corrupted_block: int | None) -> Verdict:
    """Compares what decode generated with the reference."""
    first = next(
        (i for i, pair in enumerate(zip(got, want, strict=True)) if pair[0] != pair[1]), None
    )
    count = len(want)
    if corrupted_block is not None:
        block = f"block {corrupted_block} of layer 0 was spoiled on purpose"
        if first is None:
            return Verdict(
                UNNOTICED, f"CORRUPTION NOT NOTICED: {block}, yet all {count} tokens are equal"
            )
        return Verdict(
            DIFFERENT,
            f"corruption caught: {block}, and token {first} is the first to differ",
            first,
        )
    if first is None:
        return Verdict(EQUAL, f"all {count} tokens are equal to those of one process")
    return Verdict(
        DIFFERENT,
        f"TOKENS DIFFER from number {first} of {count} on: "
        f"decode {got[first]}, reference {want[first]}",
        first,
    )


def judge_blocks(differing: list[Any], blocks: int, corrupted_block: int | None) -> Verdict:
    """Judges a replay: `differing` holds the (layer, block) that are not as recorded."""
    wrong = ", ".join(f"block {block} of layer {layer}" for layer, block in differing[:3])
    wrong += ", ..." if len(differing) > 3 else ""
    if corrupted_block is not None:
        if not differing:
            return Verdict(
                UNNOTICED, f"CORRUPTION NOT NOTICED: block {corrupted_block} was spoiled on purpose"
            )
        return Verdict(
            DIFFERENT, f"corruption caught: {len(differing)} of {blocks} blocks differ ({wrong})"
        )
    if differing:
        return Verdict(DIFFERENT, f"BLOCKS DIFFER: {len(differing)} of {blocks} ({wrong})")
    return Verdict(EQUAL, f"all {blocks} blocks are equal to the recording, byte for byte")
