"""Where one side's blocks lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    device: str  # "cuda", or "cpu"
    index: int
    arena_bytes: int  # of the largest job, for an engine that registers memory once
