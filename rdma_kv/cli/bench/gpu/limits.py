"""The limit: one bulk copy from GPU to GPU within one process, timed by the GPU."""

from __future__ import annotations

import torch

from rdma_kv.cli.accelerator import open_accelerator
from rdma_kv.cli.bench.work import LEAST_REPEATS, WARM_UP, Times, times_of

from .place import Place


class BulkCopy:
    def __init__(self, here: Place, there: Place, count: int) -> None:
        self._here = open_accelerator(here.device, here.index)
        target = open_accelerator(there.device, there.index).device
        self._source = torch.ones(count, dtype=torch.uint8, device=self._here.device)
        self._target = torch.zeros(count, dtype=torch.uint8, device=target)
        if here.device == "cuda":
            torch.cuda.set_device(here.index)

    def measure(self, seconds: float) -> Times:
        taken_us = []
        for _ in range(WARM_UP + max(LEAST_REPEATS, min(100, int(seconds * 100)))):
            timeline = self._here.timeline()
            begun = self._here.mark()
            self._target.copy_(self._source, non_blocking=True)
            ended = self._here.mark()
            self._here.synchronize()
            taken_us.append((timeline.at_ns(ended) - timeline.at_ns(begun)) / 1e3)
        if not bool(self._target.all()):
            raise RuntimeError("the bulk copy did not copy")
        return times_of(taken_us[WARM_UP:])
