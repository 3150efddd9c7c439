"""NIXL as an engine: descriptors are prepared once, a request is made for each write."""

from __future__ import annotations

import importlib
import importlib.util
import time
from typing import Any

import numpy as np

from .engine import ArenaSide, Initiator, Target
from .nixl import PACKAGES
from .place import Place
from .work import Job

WRITE_S = 30.0


def _agent(name: str, has_thread: bool) -> Any:
    package = next(name for name in PACKAGES if importlib.util.find_spec(name))
    api = importlib.import_module(f"{package}._api")
    config = api.nixl_agent_config(enable_prog_thread=has_thread, backends=["UCX"])
    return api.nixl_agent(name, config)


class NixlTarget(ArenaSide, Target):
    def open(self, job: Job) -> Any:
        self.allocate(job)
        if not hasattr(self, "_agent"):
            self._agent = _agent("target", has_thread=True)
            self._agent.register_memory(self.arena)
        return self._agent.get_agent_metadata(), self.arena.data_ptr(), self.place.index


class NixlInitiator(ArenaSide, Initiator):
    """It spins in its progress call instead of a thread: that is its faster way."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._lists: list[Any] = []

    def open(self, job: Job, address: Any) -> None:
        self.allocate(job)
        self.fill(job)
        metadata, there, their_index = address
        if not hasattr(self, "_agent"):
            self._agent = _agent("initiator", has_thread=False)
            self._agent.register_memory(self.arena)
            self._peer = self._agent.add_remote_agent(metadata)
        here = self.arena.data_ptr()
        self._lists = [
            self._prepared("NIXL_INIT_AGENT", job, here, self.place.index),
            self._prepared(self._peer, job, there, their_index),
        ]
        self._indices = job.indices()

    def write(self) -> None:
        (here, there), (src, dst) = self._lists, self._indices
        request = self._agent.make_prepped_xfer("WRITE", here, src, there, dst)
        until = time.monotonic() + WRITE_S
        state = self._agent.transfer(request)
        while state == "PROC":
            state = self._agent.check_xfer_state(request)
            if time.monotonic() > until:
                raise RuntimeError(f"not done within {WRITE_S:g} s")
        if state != "DONE":
            raise RuntimeError(f"the transfer ended as {state}")
        self._agent.release_xfer_handle(request)

    def release(self) -> None:
        for prepared in self._lists:
            prepared.release()
        self._lists = []
        super().release()

    def _prepared(self, owner: Any, job: Job, base: int, index: int) -> Any:
        blocks = np.empty((job.regions * job.pool_blocks, 3), np.uint64)
        blocks[:, 0] = job.all_addresses(base)
        blocks[:, 1] = job.block_bytes
        blocks[:, 2] = index
        kind = "VRAM" if self.place.device == "cuda" else "DRAM"
        return self._agent.prep_xfer_dlist(owner, blocks, kind)
