"""Whether something can be repeated for ever: what sides hold must not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from support.patience import eventually

# What a repetition may add on average, when measured over many: freed memory is not given back in
# the order it was taken. One Python object is a block; the smallest leak of C++ is 32 bytes.
SLACK = {
    "python_blocks": 0.3,
    "heap_bytes": 64.0,
    "resident_bytes": 2048.0,
}
# However few repetitions there are: caches of the interpreter and of the allocator fill late.
LEAST_SLACK = {
    "python_blocks": 600.0,
    "heap_bytes": 48 << 10,
    "resident_bytes": 2 << 20,
}


class Counted(Protocol):
    """One of support.side's sides, here or elsewhere."""

    def usage(self, *, is_rdma: bool = False) -> dict[str, int]: ...


def assert_stays_flat(
    cycle: Callable[[int], None], count: int, sides: Sequence[Counted], *, is_rdma: bool = False
) -> None:
    """Repeats `cycle`; the first half warms up, and the second may leave nothing behind."""
    files = shared_files()
    for i in range(count // 2):
        cycle(i)
    before = [side.usage(is_rdma=is_rdma) for side in sides]
    for i in range(count // 2, count):
        cycle(i)
    grown: dict[int, dict[str, tuple[int, int]]] = {}

    def is_flat() -> bool:
        """Goodbyes linger for a moment, and dead peers until their heartbeats are missed."""
        for number, side in enumerate(sides):
            after = side.usage(is_rdma=is_rdma)
            grown[number] = growth(before[number], after, count - count // 2)
        return not any(grown.values()) and shared_files() <= files

    try:
        eventually(is_flat, 12, "flat")
    except AssertionError:
        left = sorted(shared_files() - files)
        raise AssertionError(
            f"grown by {count - count // 2} repetitions, side by side, (before, after): {grown}; "
            f"left in /dev/shm: {left}"
        ) from None


def growth(
    before: dict[str, int], after: dict[str, int], repetitions: int
) -> dict[str, tuple[int, int]]:
    """What grew by more than it may."""
    return {
        name: (before[name], after[name])
        for name in before
        if after[name] - before[name] > slack(name, repetitions)
    }


def slack(name: str, repetitions: int) -> float:
    return max(LEAST_SLACK.get(name, 0.0), SLACK.get(name, 0.0) * repetitions)


def shared_files() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}
