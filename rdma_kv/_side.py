"""What a communicator knows about itself before it talks to anybody; both roles need it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._auth import Keys
from rdma_kv._config import Config

# The order in which `auto` tries: the fastest first.
TRANSPORTS = ("cuda_ipc", "shm", "cma", "rdma", "tcp")

# Those that carry blocks of a GPU through host memory.
STAGED = ("cma", "tcp")

# Transports that DESIGN names and this version lacks: said aloud rather than passed over.
NOT_BUILT = {
    "shm": "this version has no shared-memory segments",
}


@dataclass(frozen=True)
class Side:
    """One end: its engine, its settings, its NICs, and what the peer may learn of them."""

    engine: _core.Engine
    config: Config
    host: wire.Host
    keys: Keys | None
    rails: list[_core.RdmaRail]
    no_rdma: str  # why there is no rail
    # Decode only. False: the engine holds rank 0 of 1, and peers are seen as _ranks.py says.
    is_rank_declared: bool = True
    # Decode's memory, for prefill to map: one or none; emptied at the end, as it keeps the memory.
    cuda_exports: list[_core.CudaExports] = field(default_factory=list)
    no_cuda_ipc: str = ""  # why this side cannot use it
    staging: _core.Staging | None = None  # for blocks that a transport does not reach
    no_staging: str = ""  # why there is none

    @property
    def epoch(self) -> int:
        """Of this life of the communicator."""
        return self.engine.epoch

    @property
    def geometry(self) -> _core.Geometry:
        """The shape of this side's cache."""
        return self.engine.layout.geometry

    @property
    def is_host_memory(self) -> bool:
        """Whether no block is on a GPU."""
        return all(device < 0 for _, _, device in self.engine.layout.regions)

    def gpu_reason(self) -> str:
        """Why a transport of host memory cannot serve this side; empty when it can."""
        if self.is_host_memory or self.staging is not None:
            return ""
        return (
            f"blocks here are on a GPU, and cannot be staged through host memory: {self.no_staging}"
        )

    def must_stage(self, transport: str) -> bool:
        """Whether a transport reaches the blocks of this side only through staging."""
        return transport in STAGED and not self.is_host_memory


def staged_streams(streams: int) -> int:
    """Streams for the bytes of a staged link; it has one more for what they are answered by."""
    return min(streams, wire.MOST_STREAMS - 1)


def to_wire(geometry: _core.Geometry) -> wire.Geometry:
    """As it is sent."""
    return wire.Geometry(
        layers=geometry.layers,
        block_count=geometry.block_count,
        tensors=list(geometry.tensors),
        dtype=geometry.dtype,
        tp_size=geometry.tp_size,
        tp_rank=geometry.tp_rank,
    )


def from_wire(geometry: wire.Geometry) -> _core.Geometry:
    """As it came; raises ValueError when its numbers make no sense together."""
    return _core.Geometry(
        geometry.layers,
        geometry.block_count,
        geometry.tensors,
        geometry.dtype,
        geometry.tp_size,
        geometry.tp_rank,
    )


def show(geometry: wire.Geometry) -> str:
    """In words, for the side that reads a refusal."""
    names = ("key", "value", "key scale", "value scale")
    tensors = " + ".join(f"{names[kind]} {size} B" for kind, size, _ in geometry.tensors)
    return (
        f"{geometry.layers} layers of {geometry.block_count} blocks ({tensors}), "
        f"dtype {geometry.dtype or 'undeclared'}, "
        f"tensor-parallel rank {geometry.tp_rank} of {geometry.tp_size}"
    )


def to_wire_endpoint(endpoint: _core.RdmaEndpoint) -> wire.Endpoint:
    """As it is sent."""
    return wire.Endpoint(
        gid=endpoint.gid,
        lid=endpoint.lid,
        mtu=endpoint.mtu,
        link_layer=endpoint.link_layer,
        qps=list(endpoint.qps),
    )


def from_wire_endpoint(endpoint: wire.Endpoint) -> _core.RdmaEndpoint:
    """As it came."""
    return _core.RdmaEndpoint(
        endpoint.gid, endpoint.lid, endpoint.mtu, endpoint.link_layer, endpoint.qps
    )
