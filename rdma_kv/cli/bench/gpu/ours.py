"""This library as an engine."""

from __future__ import annotations

from typing import Any, Literal

from rdma_kv import Config, RDMACommunicator
from rdma_kv._arguments import as_ids
from rdma_kv._write_call import check_tag
from rdma_kv.cli.local import HOST, local_environment

from .breakdown import Breakdown, take_breakdown
from .engine import Initiator, Side, Target
from .work import Job


def communicator(side: Side, role: Literal["prefill", "decode"], job: Job) -> RDMACommunicator:
    tensors = 2 if job.has_values else 1
    return RDMACommunicator(
        role=role,
        gpu_idx=side.accelerator.gpu_idx,
        port="0",
        local_key_cache=side.pools[0::tensors],
        local_value_cache=side.pools[1::tensors] if job.has_values else [],
        block_number=job.pool_blocks,
        block_bytes=job.block_bytes,
        config=Config.from_env({**local_environment(), "KVCACHE_TRANSPORT": job.transport}),
    )


def traced(comm: RDMACommunicator, peer: tuple[str, int], ids: tuple[Any, Any]) -> dict[str, int]:
    """One write as write_cache() does it, and the core's moments."""
    core = comm._peers.alive(*peer)
    if core is None:
        raise RuntimeError("the connection is down")
    src, dst = (as_ids(each) for each in ids)
    return core.write_traced(src, dst, *comm._all_layers, check_tag(0, least=0), comm._timeout_s)


class OurTarget(Target):
    comm: RDMACommunicator | None = None

    def open(self, job: Job) -> int:
        self.allocate(job)
        self.accelerator.synchronize()
        self.comm = communicator(self, "decode", job)
        return self.comm.port

    def release(self) -> None:
        if self.comm:
            self.comm.close()
        self.comm = None
        super().release()


class OurInitiator(Initiator):
    comm: RDMACommunicator | None = None

    def open(self, job: Job, address: Any) -> None:
        self.allocate(job)
        self.fill(job)
        self.comm = communicator(self, "prefill", job)
        self.comm.connect(HOST, address)
        self._peer = (HOST, address)
        self._ids = job.ids()

    def write(self) -> None:
        assert self.comm
        self.comm.write_cache(*self._peer, *self._ids)

    def path(self) -> str:
        """The transport that carries the job."""
        assert self.comm
        return self.comm.peers()[0].transport

    def breakdown(self, seconds: float) -> Breakdown:
        assert self.comm
        comm = self.comm
        return take_breakdown(lambda: traced(comm, self._peer, self._ids), self.write, seconds)

    def release(self) -> None:
        if self.comm:
            self.comm.close()
        self.comm = None
        super().release()
