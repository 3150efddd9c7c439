"""The prefill side: gives all of the prompt's compute to the GPU at once, and with each layer a
write that starts when the GPU has paged that layer. Nothing waits on the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rdma_kv import RDMACommunicator, Transfer
from rdma_kv.cli.accelerator import Accelerator, Timeline
from rdma_kv.cli.demo.events import Emit, Fields
from rdma_kv.cli.demo.paging import draw_tables, pool_blocks
from rdma_kv.cli.demo.settings import Settings
from rdma_kv.cli.demo.sides import open_communicator

from .checksums import layer_checksums
from .device import open_device, plain_errors
from .model import BigLlama
from .paging import PagedTensors, Table
from .timeline import LayerStamps, busy_ms, layer_times

Address = tuple[str, str]
ALONE_REPEATS = 3


@dataclass
class Submitted:
    """One layer that was given to the GPU, and its write."""

    layer: int
    ready: Any  # a mark: K and V exist
    paged: Any  # a mark: they are in their blocks
    called_ns: int
    returned_ns: int
    transfer: Transfer

    def stamps(self, timeline: Timeline) -> LayerStamps:
        # The core's own stamp, on our clock: stats count from a moment within the call, and a layer
        # may take no longer than a call does.
        finished_ns = self.transfer._core.stats["finished_ns"]
        return LayerStamps(
            layer=self.layer,
            ready_ns=timeline.at_ns(self.ready),
            paged_ns=timeline.at_ns(self.paged),
            called_ns=self.called_ns,
            returned_ns=self.returned_ns,
            finished_ns=finished_ns,
            bytes=self.transfer.stats.bytes,
        )


class LayerWriter:
    """Pages a layer's K and V on the GPU and hands their write over, to start behind that."""

    def __init__(
        self,
        comm: RDMACommunicator,
        peer: Address,
        cache: PagedTensors,
        accelerator: Accelerator,
        settings: Settings,
        emit: Emit,
    ) -> None:
        self._comm = comm
        self._peer = peer
        self._cache = cache
        self._accelerator = accelerator
        self._settings = settings
        self._emit = emit
        tables = draw_tables(settings)
        self.table = Table(tables.prefill, accelerator.device)
        self._there = tables.decode
        self.submitted: list[Submitted] = []

    def page(self, layer: int, key: Any, value: Any) -> None:
        """All but the write."""
        self._cache.put(layer, self.table, key, value)

    def __call__(self, layer: int, key: Any, value: Any) -> None:
        ready = self._accelerator.mark()
        self.page(layer, key, value)
        paged = self._accelerator.mark()
        is_last = layer == self._settings.layers - 1
        called_ns = time.monotonic_ns()
        transfer = self._write(layer, self._settings.tag if is_last else 0, paged)
        returned_ns = time.monotonic_ns()
        self.submitted.append(Submitted(layer, ready, paged, called_ns, returned_ns, transfer))
        self._emit("layer", {"done": layer + 1, "of": self._settings.layers})

    def warm_up(self) -> None:
        """Writes every layer once while the pools are zero: what decode reads later is not this."""
        self._cache.clear()
        zeroed = self._accelerator.mark()
        writes = [self._write(layer, 0, zeroed) for layer in range(self._settings.layers)]
        for write in writes:
            write.wait()

    def _write(self, layer: int, tag: int, after: Any) -> Transfer:
        return self._comm.write_cache_async(
            *self._peer,
            self.table.ids,
            self._there,
            layer_idx=layer,
            tag=tag,
            after=after,
            timeout_s=self._settings.timeout_s,
        )


def run_prefill(settings: Settings, find_peer: Callable[[], Address], emit: Emit) -> Fields:
    """Plays the role once; `find_peer` is asked for decode's address when the model is there."""
    with plain_errors():
        accelerator = open_device(settings, "prefill")
        model = BigLlama(settings, accelerator, emit)
        settings = replace(settings, weights=model.checksum)
        cache = PagedTensors(settings, pool_blocks(settings)[0], accelerator.device)
        emit("ready", {"text": model.describe()})
        gpu = accelerator.gpu_idx
        with open_communicator("prefill", "0", cache, settings, gpu) as comm:
            peer = find_peer()
            comm.connect(*peer)
            link = comm.peers()[0]
            reasons = [f"not {name}: {reason}" for name, reason in link.reasons.items()]
            emit("connected", {"transport": link.transport, "reasons": reasons})
            writer = LayerWriter(comm, peer, cache, accelerator, settings, emit)
            alone_ms = _compute_alone_ms(model, writer, accelerator, emit)
            writer.warm_up()
            result = _compute_and_write(model, writer, accelerator)
            result |= {
                "source": model.describe(),
                "device": accelerator.name,
                "weights": model.checksum,
                "transport": link.transport,
                "reasons": reasons,
                "path": link.description,
                "blocks": settings.blocks * settings.layers,
                "compute_alone_ms": alone_ms,
                "kv": layer_checksums(cache, writer.table, settings.layers),
            }
    return result


def _compute_and_write(model: BigLlama, writer: LayerWriter, accelerator: Accelerator) -> Fields:
    timeline = accelerator.timeline()
    begun = accelerator.mark()
    model.prefill(writer)
    computed = accelerator.mark()
    accelerator.synchronize()
    for one in writer.submitted:
        one.transfer.wait()  # ends by itself, at the deadline of its write
    computed_ns = timeline.at_ns(computed)
    stamps = [one.stamps(timeline) for one in writer.submitted]
    times = layer_times(stamps, computed_ns)
    return {
        "layers": [asdict(t) for t in times],
        "bytes": sum(t.bytes for t in times),
        "busy_ms": busy_ms(stamps),
        "compute_ms": (computed_ns - timeline.at_ns(begun)) / 1e6,
        "copy_ms": sum(t.copy_ms for t in times),
        "call_ms": sum(t.call_ms for t in times),
        "tail_ms": max(0.0, max(s.finished_ns for s in stamps) - computed_ns) / 1e6,
        "computed_ns": computed_ns,
    }


def _compute_alone_ms(
    model: BigLlama, writer: LayerWriter, accelerator: Accelerator, emit: Emit
) -> float:
    """The same compute and paging with no write under way, after a warm-up."""
    taken_ms = []
    for _ in range(1 + ALONE_REPEATS):
        timeline = accelerator.timeline()
        begun = accelerator.mark()
        model.prefill(writer.page)
        ended = accelerator.mark()
        accelerator.synchronize()
        taken_ms.append((timeline.at_ns(ended) - timeline.at_ns(begun)) / 1e6)
    alone_ms = statistics.median(taken_ms[1:])
    text = f"warmed up in {taken_ms[0]:.0f} ms; the prompt takes {alone_ms:.1f} ms without writes"
    emit("stage", {"text": text})
    return alone_ms
