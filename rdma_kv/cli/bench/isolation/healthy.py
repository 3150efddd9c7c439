"""The writes that are timed: one after the other, to all healthy peers in turn, at a fixed rate."""

from __future__ import annotations

import select
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rdma_kv import RDMACommunicator
from rdma_kv.cli.bench.work import Ids
from rdma_kv.cli.local import HOST

from .settings import BLOCKS, POOL_BLOCKS, TAG

# Sync: the caller drives its write. Async: the communicator's own thread does, which serves the
# links of all peers, the sick one's too.
MODES = ("sync", "async")
Samples = dict[str, list[float]]


class HealthyWrites:
    def __init__(self, comm: RDMACommunicator, ports: Sequence[str], rate: float) -> None:
        self._comm = comm
        self._ports = ports
        self._period_s = 1 / rate
        self._turn = 0
        random = np.random.default_rng(8)
        self.src: Ids = random.permutation(POOL_BLOCKS)[:BLOCKS].astype(np.int64)
        self.dst: Ids = random.permutation(POOL_BLOCKS)[:BLOCKS].astype(np.int64)

    def time(self, seconds: float) -> Samples:
        """Microseconds of each write, from the call to its end, by mode."""
        found: Samples = defaultdict(list)
        next_at = time.monotonic()
        end = next_at + seconds
        while next_at < end:
            time.sleep(max(0.0, next_at - time.monotonic()))
            mode = MODES[self._turn // len(self._ports) % 2]
            port = self._ports[self._turn % len(self._ports)]
            self._turn += 1
            begin_ns = time.perf_counter_ns()
            if mode == "sync":
                self._comm.write_cache(HOST, port, self.src, self.dst, 0, tag=TAG)
                taken_ns = time.perf_counter_ns() - begin_ns
            else:
                transfer = self._comm.write_cache_async(HOST, port, self.src, self.dst, 0, tag=TAG)
                select.select([transfer], [], [])
                taken_ns = time.perf_counter_ns() - begin_ns
                transfer.wait()
            found[mode].append(taken_ns / 1e3)
            next_at = max(next_at + self._period_s, time.monotonic())
        return found
