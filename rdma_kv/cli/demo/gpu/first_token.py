"""How soon decode has its first token: by transfer, and by computing the prompt itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdma_kv.cli.demo.events import Fields


@dataclass(frozen=True)
class FirstToken:
    """In milliseconds; both sides must be on one machine, whose clock they share."""

    exposed_ms: float  # from the end of prefill's compute to the notice of the last write
    gather_and_step_ms: float  # from there to the token
    via_transfer_ms: float  # from the end of prefill's compute to the token
    recompute_ms: float  # the prompt computed on decode, to the token

    @property
    def times_sooner(self) -> float:
        return self.recompute_ms / self.via_transfer_ms if self.via_transfer_ms > 0 else 0.0

    @classmethod
    def of(cls, results: dict[str, Fields]) -> FirstToken | None:
        """None when one of the sides is elsewhere."""
        if not {"prefill", "decode"} <= results.keys():
            return None
        decode: dict[str, Any] = results["decode"]
        computed_ns = results["prefill"]["computed_ns"]
        return cls(
            exposed_ms=(decode["received_ns"] - computed_ns) / 1e6,
            gather_and_step_ms=(decode["first_token_ns"] - decode["received_ns"]) / 1e6,
            via_transfer_ms=(decode["first_token_ns"] - computed_ns) / 1e6,
            recompute_ms=decode["recompute_ms"],
        )
