"""What a way to move blocks must offer, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from rdma_kv.cli.accelerator import open_accelerator
from rdma_kv.cli.bench.work import Times, take_times

from .content import fill, first_wrong
from .place import Place
from .work import Job


class Side:
    """One process of an engine; its methods are called from the parent."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.accelerator = open_accelerator(place.device, place.index)
        self.pools: list[torch.Tensor] = []

    def allocate(self, job: Job) -> None:
        """A tensor of its own for each region, as engines that serve models have them."""
        shape = (job.pool_blocks, job.block_bytes)
        device = self.accelerator.device
        self.pools = [
            torch.zeros(shape, dtype=torch.uint8, device=device) for _ in range(job.regions)
        ]

    def release(self) -> None:
        """Ends what a job holds; a job that failed is released, too."""
        self.pools = []
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()


class Target(Side, ABC):
    @abstractmethod
    def open(self, job: Job) -> Any:
        """Zero pools that can be written to; returns what the initiator must know."""

    def wrong(self, job: Job) -> str | None:
        return first_wrong(self.pools, job)


class Initiator(Side, ABC):
    @abstractmethod
    def open(self, job: Job, address: Any) -> None:
        """Filled pools, connected."""

    @abstractmethod
    def write(self) -> None:
        """The job, once, to completion."""

    def fill(self, job: Job) -> None:
        fill(self.pools, job)
        self.accelerator.synchronize()

    def measure(self, seconds: float) -> Times:
        return take_times(self.write, seconds)


class ArenaSide(Side):
    """One allocation for all jobs: who remembers mappings must never see another in its place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.arena = torch.zeros(
            place.arena_bytes, dtype=torch.uint8, device=self.accelerator.device
        )

    def allocate(self, job: Job) -> None:
        self.arena.zero_()
        flat = self.arena[: job.pool_bytes].view(job.regions, job.pool_blocks, job.block_bytes)
        self.pools = list(flat)
        self.accelerator.synchronize()
