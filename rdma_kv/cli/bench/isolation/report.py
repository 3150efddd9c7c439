"""The table, and what it says about the target."""

from __future__ import annotations

from .measure import Ratio, Row
from .settings import BLOCK_BYTES, BLOCKS, SICK_RETRY_S, SICK_TIMEOUT_S, Settings
from .sick import KINDS

HEADINGS = (
    f"{'transport':<10}{'sick':<15}{'mode':<6}{'writes':>7}"
    f"{'calm_p50_us':>12}{'sick_p50_us':>12}{'ratio':>7}"
    f"{'calm_p99_us':>12}{'sick_p99_us':>12}{'ratio':>7}{'low..high':>12}{'quiet':>7}"
    f"{'prefill':>8}{'decodes':>8}{'flooder':>8}{'blows/s':>8}  verdict"
)


def line(row: Row, target: float) -> str:
    p99 = row.p99_ratio
    return (
        f"{row.transport:<10}{row.kind:<15}{row.mode:<6}{row.writes:>7}"
        f"{row.calm_p50_us:>12.0f}{row.sick_p50_us:>12.0f}{row.p50_ratio.median:>7.2f}"
        f"{row.calm_p99_us:>12.0f}{row.sick_p99_us:>12.0f}{p99.median:>7.2f}"
        f"{f'{p99.low:.2f}..{p99.high:.2f}':>12}{row.p99_quiet_ratio:>7.2f}"
        f"{row.prefill_cores:>8.2f}{row.decode_cores:>8.2f}{row.flooder_cores:>8.2f}"
        f"{row.blows_per_s:>8.1f}  {verdict(p99, target)}"
    )


def verdict(p99: Ratio, target: float) -> str:
    if p99.median <= target:
        return "ok"
    return "ABOVE" if p99.low > target else "unclear"


def footnotes(settings: Settings) -> list[str]:
    kinds = [f"{kind}: {KINDS[kind]}." for kind in settings.kinds]
    return [
        f"One communicator writes {BLOCKS} blocks of {BLOCK_BYTES // 1024} KiB to "
        f"{settings.healthy} healthy decodes in turn, {settings.rate:g} writes a second on one",
        "thread, and from others to one more decode, which falls sick. Only the healthy are timed.",
        "sync: the caller drives its write; async: the communicator's own thread does.",
        "ratio: sick over the calm phase right before it, median of "
        f"{settings.rounds} rounds; low..high: 90 % of it, redrawn.",
        f"Target: p99 at most {settings.target:g}x. ok: the median is; ABOVE: all of low..high is "
        "above; unclear: take more rounds.",
        "quiet: the same ratio, of the p99 of the quieter quarter of the phases of either kind.",
        "prefill, decodes, flooder: cores used in the sick phases. Two threads try the sick peer "
        f"{SICK_RETRY_S * 1e3:g} ms after",
        f"each failure, with deadlines of {SICK_TIMEOUT_S:g} s. Flooders run at nice 19, at most "
        f"{settings.flood_rate:g} blows a second: what they and",
        "the flooded process compute is missing elsewhere, on few cores: compare with the burner.",
        *kinds,
    ]
