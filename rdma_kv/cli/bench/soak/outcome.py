"""What a run found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .resources import Checkpoint, growth
from .settings import Settings
from .tally import Tally, percentile_us


@dataclass
class Outcome:
    settings: Settings
    tally: Tally = field(default_factory=Tally)
    faults: Counter[str] = field(default_factory=Counter)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    was_interrupted: bool = False

    @property
    def grown(self) -> list[str] | None:
        """The first checkpoint is of fresh processes: they have yet to grow to their size."""
        return growth(self.checkpoints[1:])

    @property
    def is_good(self) -> bool:
        return not self.tally.failure_count and not self.grown and self.tally.writes > 0

    def times_us(self) -> dict[str, dict[str, float]]:
        return {
            transport: {
                "writes": times.total(),
                "p50_us": percentile_us(times, 50),
                "p99_us": percentile_us(times, 99),
                "most_us": percentile_us(times, 100),
            }
            for transport, times in sorted(self.tally.times.items())
        }

    def flatness(self) -> str:
        if self.grown is None:
            return "too few checkpoints to tell"
        return "; ".join(self.grown) or "flat"

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.__dict__,
            "is_good": self.is_good,
            "was_interrupted": self.was_interrupted,
            "seconds": self.seconds,
            "cpu_s": self.cpu_s,
            "writes": self.tally.writes,
            "bytes_written": self.tally.bytes_written,
            "bytes_verified": self.tally.bytes_verified,
            "notices_verified": self.tally.notices_verified,
            "failures": self.tally.failure_count,
            "first_failures": self.tally.failures,
            "errors": dict(self.tally.errors),
            "samples": self.tally.samples,
            "counts": dict(self.tally.counts),
            "faults": dict(self.faults),
            "times": self.times_us(),
            "flatness": self.flatness(),
            "checkpoints": [c.as_dict() for c in self.checkpoints],
        }
