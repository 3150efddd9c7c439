"""The processes whose set-up is measured."""

from __future__ import annotations

import time

from rdma_kv import RDMACommunicator
from rdma_kv.cli.local import HOST

from .engine import Side
from .ours import communicator
from .place import Place
from .setup_cost import JOB


class Warm(Side):
    """What CUDA and torch take for themselves with the first kernel is not a communicator's."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.allocate(JOB)
        self.release()
        self.accelerator.synchronize()

    def free(self) -> int | None:
        return self.accelerator.free_bytes()


class Decodes(Warm):
    """Several decode communicators, each with a pool of its own, as so many peers."""

    def open(self, count: int) -> list[int]:
        self.allocate(JOB)
        self._pools = [self.pools]
        for _ in range(count - 1):
            self.allocate(JOB)
            self._pools.append(self.pools)
        return self._listen()

    def _listen(self) -> list[int]:
        self._comms = []
        for pools in self._pools:
            self.pools = pools
            self._comms.append(communicator(self, "decode", JOB))
        return [comm.port for comm in self._comms]


class Prefill(Warm):
    comm: RDMACommunicator

    def open(self) -> None:
        self.allocate(JOB)
        self.accelerator.synchronize()
        self.comm = communicator(self, "prefill", JOB)

    def connect(self, port: int) -> tuple[float, float]:
        """Milliseconds to connect, and then to the end of the first write."""
        src, dst = JOB.ids()
        began = time.perf_counter()
        self.comm.connect(HOST, port)
        connected = time.perf_counter()
        self.comm.write_cache(HOST, port, src, dst)
        return (connected - began) * 1e3, (time.perf_counter() - connected) * 1e3
