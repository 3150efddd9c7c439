"""Mooncake's transfer engine as an engine."""

from __future__ import annotations

import os
from typing import Any

from rdma_kv.cli.local import HOST

from .engine import ArenaSide, Initiator, Target
from .work import Job


def _engine(arena: Any) -> Any:
    from mooncake.engine import TransferEngine  # after torch, which has loaded CUDA's libraries

    # With MC_INTRANODE_NVLINK the protocol counts for nothing, but some versions look at it first.
    protocols = ("tcp",) if "MC_FORCE_TCP" in os.environ else ("rdma", "tcp")
    for protocol in protocols:
        engine = TransferEngine()
        if engine.initialize(HOST, "P2PHANDSHAKE", protocol, "") == 0:
            break
    else:
        raise RuntimeError("initialize failed")
    status = engine.register_memory(arena.data_ptr(), arena.numel())
    if status != 0:
        raise RuntimeError(f"register_memory ended with {status}")
    return engine


class MooncakeTarget(ArenaSide, Target):
    def open(self, job: Job) -> Any:
        self.allocate(job)
        if not hasattr(self, "_engine"):
            self._engine = _engine(self.arena)
        return f"{HOST}:{self._engine.get_rpc_port()}", self.arena.data_ptr()


class MooncakeInitiator(ArenaSide, Initiator):
    def open(self, job: Job, address: Any) -> None:
        self.allocate(job)
        self.fill(job)
        if not hasattr(self, "_engine"):
            self._engine = _engine(self.arena)
        self._peer, there = address
        src, dst = job.indices()
        self._here = job.all_addresses(self.arena.data_ptr())[src].tolist()
        self._there = job.all_addresses(there)[dst].tolist()
        self._lengths = [job.block_bytes] * len(self._here)

    def write(self) -> None:
        status = self._engine.batch_transfer_sync_write(
            self._peer, self._here, self._there, self._lengths
        )
        if status != 0:
            raise RuntimeError(f"batch_transfer_sync_write ended with {status}")
