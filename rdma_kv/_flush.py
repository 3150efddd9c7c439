"""Whether what a NIC has written to decode's GPU is flushed before it counts as visible."""

from __future__ import annotations

from typing import NamedTuple

from rdma_kv import _core
from rdma_kv._config import Config


class FlushPlan(NamedTuple):
    """See src/cuda/write_order.h."""

    by_reading: bool  # prefill reads back what it wrote
    is_enough: bool  # no: KVCACHE_GDRCOPY_FLUSH_ENABLE=0 forbids what a GPU needs
    reason: str


NO_FLUSH = FlushPlan(False, True, "")


def plan_flush(layout: _core.Layout, config: Config) -> FlushPlan:
    """For the regions of a side that is written to."""
    devices = sorted({device for _, _, device in layout.regions if device >= 0})
    return FlushPlan(*_core.flush_plan(devices, config.gdrcopy_flush_enable))
