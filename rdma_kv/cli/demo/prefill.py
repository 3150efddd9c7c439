"""The prefill side: computes the prompt and writes each layer the moment its K and V exist."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rdma_kv import RDMACommunicator, Transfer

from . import recording
from .events import Emit, Fields
from .layer_times import LayerTimes
from .paging import Floats, PagedCache, Tables, draw_tables, pool_blocks
from .settings import Settings
from .sides import open_communicator
from .source import open_source

Address = tuple[str, str]


@dataclass
class Submitted:
    """One layer on its way. All times are time.monotonic_ns()."""

    layer: int
    ready_ns: int  # K and V exist
    called_ns: int  # they are in their blocks: the write is handed over
    returned_ns: int
    transfer: Transfer

    @property
    def started_ns(self) -> float:
        return self.called_ns + self.transfer.stats.queued_us * 1e3

    @property
    def finished_ns(self) -> float:
        return self.called_ns + self.transfer.stats.total_us * 1e3


class LayerWriter:
    """Pages a layer's K and V and starts their write; the next layer computes meanwhile."""

    def __init__(
        self,
        comm: RDMACommunicator,
        peer: Address,
        cache: PagedCache,
        settings: Settings,
        emit: Emit,
    ) -> None:
        self._comm = comm
        self._peer = peer
        self._cache = cache
        self._settings = settings
        self._emit = emit
        self.tables: Tables = draw_tables(settings)
        self.submitted: list[Submitted] = []

    def __call__(self, layer: int, key: Floats, value: Floats) -> None:
        ready_ns = time.monotonic_ns()
        self._cache.put(layer, self.tables.prefill, key, value)
        called_ns = time.monotonic_ns()
        is_last = layer == self._settings.layers - 1
        transfer = self._comm.write_cache_async(
            *self._peer,
            self.tables.prefill,
            self.tables.decode,
            layer_idx=layer,
            tag=self._settings.tag if is_last else 0,
            timeout_s=self._settings.timeout_s,
        )
        self.submitted.append(Submitted(layer, ready_ns, called_ns, time.monotonic_ns(), transfer))
        self._emit("layer", {"done": layer + 1, "of": self._settings.layers})


def layer_times(submitted: list[Submitted], computed_ns: int) -> list[LayerTimes]:
    """computed_ns: when the model had its logits; from then on nothing hides a transfer."""
    ready = [s.ready_ns for s in submitted[1:]] + [computed_ns]
    computing = [(s.returned_ns, until) for s, until in zip(submitted, ready, strict=True)]
    times = []
    for one, (compute_begin_ns, compute_end_ns) in zip(submitted, computing, strict=True):
        stats = one.transfer.stats
        transfer_ms = stats.total_us / 1e3
        hidden_ns = sum(
            max(0.0, min(one.finished_ns, end) - max(one.called_ns, begin))
            for begin, end in computing
        )
        hidden_ms = min(transfer_ms, hidden_ns / 1e6)
        times.append(
            LayerTimes(
                layer=one.layer,
                compute_ms=(compute_end_ns - compute_begin_ns) / 1e6,
                copy_ms=(one.called_ns - one.ready_ns) / 1e6,
                call_ms=(one.returned_ns - one.called_ns) / 1e6,
                transfer_ms=transfer_ms,
                hidden_ms=hidden_ms,
                exposed_ms=transfer_ms - hidden_ms,
                bytes=stats.bytes,
                gb_per_s=stats.gb_per_s,
            )
        )
    return times


def run_prefill(settings: Settings, find_peer: Callable[[], Address], emit: Emit) -> Fields:
    """Plays the role once; `find_peer` is asked for decode's address when all else is ready."""
    source, settings = open_source(settings)
    cache = PagedCache(settings, pool_blocks(settings)[0])
    emit("ready", {"text": source.describe()})
    with open_communicator("prefill", "0", cache, settings) as comm:
        peer = find_peer()
        comm.connect(*peer)
        link = comm.peers()[0]
        reasons = [f"not {name}: {reason}" for name, reason in link.reasons.items()]
        emit("connected", {"transport": link.transport, "reasons": reasons})
        writer = LayerWriter(comm, peer, cache, settings, emit)
        begun_ns = time.monotonic_ns()
        source.prefill(writer)
        computed_ns = time.monotonic_ns()
        for one in writer.submitted:
            one.transfer.wait()  # ends by itself, at the deadline of its write
        times = layer_times(writer.submitted, computed_ns)
        finished_ns = max(one.finished_ns for one in writer.submitted)
        copy_ms = sum(t.copy_ms for t in times)
        call_ms = sum(t.call_ms for t in times)
        result: Fields = {
            "source": source.describe(),
            "transport": link.transport,
            "reasons": reasons,
            "path": link.description,
            "layers": [asdict(t) for t in times],
            "blocks": settings.blocks * settings.layers,
            "bytes": sum(t.bytes for t in times),
            "busy_ms": _busy_ns(writer.submitted) / 1e6,
            "compute_ms": (computed_ns - begun_ns) / 1e6 - copy_ms - call_ms,
            "copy_ms": copy_ms,
            "call_ms": call_ms,
            "tail_ms": max(0.0, finished_ns - computed_ns) / 1e6,
        }
    if settings.record:
        result["recorded"] = str(recording.save(settings, cache, writer.tables.prefill))
    return result


def _busy_ns(submitted: list[Submitted]) -> float:
    """Time during which at least one write was moving: overlaps count once."""
    busy, until = 0.0, 0.0
    for begin, end in sorted((one.started_ns, one.finished_ns) for one in submitted):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy
