"""What a peer costs: time to connect, and memory of either GPU."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

from .process import Remote
from .work import Job

PEERS = 4
JOB = Job(block_bytes=32 * 1024)  # pools so large that torch takes as much for each, and no more
MIB = 1 << 20


@dataclass(frozen=True)
class SetupCost:
    """Memory is the whole GPU's, so what other processes take meanwhile is in it. None: no GPU."""

    peers: int
    first_connect_ms: float
    first_write_ms: float
    further_connect_ms: float  # median of the others
    source_communicator_mib: float | None
    source_first_peer_mib: float | None
    source_further_peer_mib: float | None
    target_communicator_mib: float | None  # of one; it has not been connected to
    target_first_peer_mib: float | None
    target_further_peer_mib: float | None

    def as_dict(self) -> dict[str, object]:
        return {"table": "setup", **asdict(self)}


def measure_setup(prefill: Remote, decodes: Remote, limit_s: float) -> SetupCost:
    def look() -> tuple[int | None, int | None]:
        return prefill.call(limit_s, "free"), decodes.call(limit_s, "free")

    pool_mib = JOB.pool_bytes / MIB
    before = look()
    ports = decodes.call(limit_s, "open", PEERS)
    prefill.call(limit_s, "open")
    opened = look()
    first = prefill.call(limit_s, "connect", ports[0])
    connected = look()
    others = [prefill.call(limit_s, "connect", port) for port in ports[1:]]
    ended = look()

    def mib(
        some: tuple[int | None, int | None], other: tuple[int | None, int | None], side: int
    ) -> float | None:
        a, b = some[side], other[side]
        return None if a is None or b is None else (a - b) / MIB

    def less(taken: float | None, pools: float, shared_by: int = 1) -> float | None:
        return None if taken is None else (taken - pools) / shared_by

    return SetupCost(
        peers=PEERS,
        first_connect_ms=first[0],
        first_write_ms=first[1],
        further_connect_ms=statistics.median(ms for ms, _ in others),
        source_communicator_mib=less(mib(before, opened, 0), pool_mib),
        source_first_peer_mib=mib(opened, connected, 0),
        source_further_peer_mib=less(mib(connected, ended, 0), 0, PEERS - 1),
        target_communicator_mib=less(mib(before, opened, 1), pool_mib * PEERS, PEERS),
        target_first_peer_mib=mib(opened, connected, 1),
        target_further_peer_mib=less(mib(connected, ended, 1), 0, PEERS - 1),
    )
