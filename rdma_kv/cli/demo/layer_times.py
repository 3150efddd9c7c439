"""What one layer cost, whichever memory it is in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LayerTimes:
    """What one layer cost, in milliseconds. Hidden + exposed = transfer."""

    layer: int
    compute_ms: float  # until the next layer's K and V, or the logits
    copy_ms: float  # K and V into their blocks: the compute thread, or the GPU's stream, does it
    call_ms: float  # handing the write over: the calling thread is held up for as long
    transfer_ms: float  # until the peer can read the bytes
    hidden_ms: float  # the part of it during which the model computed
    exposed_ms: float
    bytes: int
    gb_per_s: float
