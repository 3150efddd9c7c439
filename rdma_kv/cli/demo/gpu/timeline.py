"""From time stamps to what was hidden behind compute: arithmetic, in host nanoseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rdma_kv.cli.demo.layer_times import LayerTimes


@dataclass(frozen=True)
class LayerStamps:
    """One layer. The processor runs ahead of the GPU: a call comes long before its layer."""

    layer: int
    ready_ns: float  # the GPU has K and V
    paged_ns: float  # and has them in their blocks: the write may start
    called_ns: float
    returned_ns: float
    finished_ns: float  # decode can read them
    bytes: int

    @property
    def began_ns(self) -> float:
        return max(self.paged_ns, self.called_ns)


def layer_times(stamps: Sequence[LayerStamps], computed_ns: float) -> list[LayerTimes]:
    """computed_ns: when the GPU had the logits; from then on nothing hides a transfer."""
    ready = [s.ready_ns for s in stamps[1:]] + [computed_ns]
    times = []
    for one, next_ready_ns in zip(stamps, ready, strict=True):
        transfer_ns = max(0.0, one.finished_ns - one.began_ns)
        hidden_ns = min(transfer_ns, max(0.0, computed_ns - one.began_ns))
        times.append(
            LayerTimes(
                layer=one.layer,
                compute_ms=(next_ready_ns - one.paged_ns) / 1e6,
                copy_ms=(one.paged_ns - one.ready_ns) / 1e6,
                call_ms=(one.returned_ns - one.called_ns) / 1e6,
                transfer_ms=transfer_ns / 1e6,
                hidden_ms=hidden_ns / 1e6,
                exposed_ms=(transfer_ns - hidden_ns) / 1e6,
                bytes=one.bytes,
                gb_per_s=one.bytes / transfer_ns if transfer_ns else 0.0,
            )
        )
    return times


def busy_ms(stamps: Sequence[LayerStamps]) -> float:
    """Time during which at least one write was moving: overlaps count once."""
    busy, until = 0.0, 0.0
    for begin, end in sorted((s.began_ns, s.finished_ns) for s in stamps):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy / 1e6
