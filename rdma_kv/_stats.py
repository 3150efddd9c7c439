"""What a communicator tells about itself: plain values, with their units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rdma_kv import _core


@dataclass(frozen=True)
class Notice:
    """One write with a tag is visible here, every byte of it.

    Attributes:
        tag: As given to the write.
        peer: Address of the prefill side that wrote.
        epoch: Of that side: another one after it restarted.
    """

    tag: int
    peer: str
    epoch: int


@dataclass(frozen=True)
class Departure:
    """A peer that could write to this side and cannot any more.

    Attributes:
        peer: Its address, as in its notices.
        epoch: Of that side.
        reason: Why, in words: it said goodbye, its process ended, it fell silent, it was revoked.
        is_quiesced: Whether nothing of it can land any more; False: see ``unquiesced()``.
    """

    peer: str
    epoch: int
    reason: str
    is_quiesced: bool


@dataclass(frozen=True)
class UnquiescedWrite:
    """A write that failed and may still land.

    Attributes:
        tag: Of the write.
        layers: It was to write.
        local_block_ids: What may still be read; do not overwrite it.
        remote_block_ids: What may still be overwritten, in the same order.
    """

    tag: int
    layers: range
    local_block_ids: tuple[int, ...]
    remote_block_ids: tuple[int, ...]

    @classmethod
    def from_core(
        cls, tag: int, first_layer: int, layer_count: int, runs: list[tuple[int, int, int]]
    ) -> UnquiescedWrite:
        """From the core's runs of neighbouring blocks."""
        return cls(
            tag,
            range(first_layer, first_layer + layer_count),
            tuple(src + i for src, _, count in runs for i in range(count)),
            tuple(dst + i for _, dst, count in runs for i in range(count)),
        )


@dataclass(frozen=True)
class Unquiesced:
    """A peer whose link has ended, and of which bytes may still land.

    It leaves the list by itself: once the peer confirms that it has stopped, or its process ends.

    Attributes:
        peer: Its name.
        epoch: Its life.
        transport: Of the link.
        reason: Why the link ended.
        writes: On prefill, the writes in question. Empty on decode, which does not know them: any
            block that was granted to that peer.
    """

    peer: str
    epoch: int
    transport: str
    reason: str
    writes: tuple[UnquiescedWrite, ...] = ()


@dataclass(frozen=True)
class PeerInfo:
    """One connected peer and the way that blocks take to it.

    Attributes:
        name: Address of the peer.
        epoch: One life of its process.
        transport: What was chosen.
        reasons: For each transport that was passed over, why, in one sentence.
        description: How the path was set up; empty on decode.
        is_connected: Whether the path is up.
    """

    name: str
    epoch: int
    transport: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    is_connected: bool = True


@dataclass(frozen=True)
class TransferStats:
    """One write. Times are zero when it did not get that far.

    Attributes:
        blocks: Pairs of block ids, however many layers they were written in.
        bytes: Payload over all layers and tensors.
        runs: Groups of neighbouring blocks that were written as one.
        queued_us: From the call to its first byte.
        moved_us: From its first byte to the moment when all are visible at the peer.
        total_us: From the call to its end.
    """

    blocks: int
    bytes: int
    runs: int
    queued_us: float
    moved_us: float
    total_us: float

    @property
    def gb_per_s(self) -> float:
        """Payload over the whole time of the call, in 10**9 bytes a second."""
        return self.bytes / self.total_us / 1e3 if self.total_us > 0 else 0.0

    @classmethod
    def from_core(cls, raw: Mapping[str, int]) -> TransferStats:
        """From the nanosecond stamps of the core."""
        submitted, started, finished = (
            raw[name] for name in ("submitted_ns", "started_ns", "finished_ns")
        )
        return cls(
            blocks=raw["blocks"],
            bytes=raw["bytes"],
            runs=raw["runs"],
            queued_us=(started - submitted) / 1e3 if started else 0.0,
            moved_us=(finished - started) / 1e3 if started and finished else 0.0,
            total_us=(finished - submitted) / 1e3 if finished else 0.0,
        )


@dataclass(frozen=True)
class PeerStats:
    """Counters of one peer since it was connected.

    Attributes:
        queued_transfers: Now; all others only grow.
        runs_written: Groups of neighbouring blocks that were written as one.
        posts: Doorbells rung, or system calls that moved bytes.
        work_requests: Handed to the NIC; iovecs where there is none.
        completions: Reaped from the NIC; acknowledgements where there is none.
    """

    name: str
    transport: str
    transfers_done: int
    transfers_failed: int
    blocks_written: int
    bytes_written: int
    runs_written: int
    queued_transfers: int
    posts: int
    work_requests: int
    completions: int

    @classmethod
    def from_core(cls, peer: _core.Peer) -> PeerStats:
        """A snapshot."""
        counters = dict(peer.counters())
        counters["queued_transfers"] = counters.pop("queued")
        return cls(name=peer.name, transport=peer.transport, **counters)


@dataclass(frozen=True)
class Stats:
    """Counters of one communicator since it was made, lost and disconnected peers included.

    Attributes:
        peers: Those connected now (prefill).
        inbound_links: Links by which peers write to this side now (decode).
        registered_bytes: Memory that NICs may touch, summed over NICs.
    """

    role: str
    epoch: int
    transfers_done: int
    transfers_failed: int
    blocks_written: int
    bytes_written: int
    runs_written: int
    inbound_links: int
    registered_bytes: int
    peers: tuple[PeerStats, ...]
