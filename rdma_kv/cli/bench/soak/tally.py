"""What happened, counted; cheap to add up over threads, processes and time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

# Of a factor of ten; so a percentile is right within 3 %.
_BUCKETS = 80


@dataclass
class Tally:
    """`failures` are what must not happen at all; `errors` are told by the product, and judged."""

    writes: int = 0
    bytes_written: int = 0
    bytes_verified: int = 0
    notices_verified: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failure_count: int = 0
    # For each transport: how many successful writes took how long.
    times: dict[str, Counter[int]] = field(default_factory=dict)

    def add_time(self, transport: str, seconds: float) -> None:
        bucket = round(math.log10(max(seconds * 1e6, 1.0)) * _BUCKETS)
        self.times.setdefault(transport, Counter())[bucket] += 1

    def add_error(self, kind: str, message: str) -> None:
        self.errors[kind] += 1
        self.samples.setdefault(kind, message)

    def fail(self, what: str) -> None:
        self.failure_count += 1
        if len(self.failures) < 20:  # one fault may have a thousand faces
            self.failures.append(what)

    def add(self, other: Tally) -> None:
        self.writes += other.writes
        self.bytes_written += other.bytes_written
        self.bytes_verified += other.bytes_verified
        self.notices_verified += other.notices_verified
        self.counts += other.counts
        self.errors += other.errors
        self.samples = {**other.samples, **self.samples}
        self.failure_count += other.failure_count
        self.failures = (self.failures + other.failures)[:20]
        for transport, times in other.times.items():
            self.times.setdefault(transport, Counter()).update(times)


def percentile_us(times: Counter[int], percent: float) -> float:
    """The time that so many percent of the writes did not exceed."""
    wanted = math.ceil(times.total() * percent / 100)
    for bucket in sorted(times):
        wanted -= times[bucket]
        if wanted <= 0:
            return float(10 ** (bucket / _BUCKETS))
    return 0.0
