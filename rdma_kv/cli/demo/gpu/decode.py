"""The decode side, and the reference that does the same in one process with no transfer."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from rdma_kv.cli.accelerator import Accelerator
from rdma_kv.cli.demo.decode import await_last_write
from rdma_kv.cli.demo.events import Emit, Fields
from rdma_kv.cli.demo.paging import draw_tables, pool_blocks
from rdma_kv.cli.demo.settings import Settings
from rdma_kv.cli.demo.sides import open_communicator

from .checksums import layer_checksums
from .device import open_device, plain_errors
from .model import BigLlama
from .paging import PagedTensors, Table

RECOMPUTE_REPEATS = 3
WARM_UP_TOKENS = 2


def run_decode(settings: Settings, port: str, emit: Emit) -> Fields:
    """Plays the role once: what it generated, from which bytes, and how soon."""
    with plain_errors():
        accelerator = open_device(settings, "decode")
        model = BigLlama(settings, accelerator, emit)
        settings = replace(settings, weights=model.checksum)
        cache = PagedTensors(settings, pool_blocks(settings)[1], accelerator.device)
        table = Table(draw_tables(settings).decode, accelerator.device)
        model.continue_from(cache, table, lambda done: None, WARM_UP_TOKENS)  # from zeros
        emit("ready", {"text": model.describe()})
        gpu = accelerator.gpu_idx
        with open_communicator("decode", port, cache, settings, gpu) as comm:
            emit("listening", {"port": str(comm.port)})
            await_last_write(comm, settings)
            received_ns = time.monotonic_ns()
            emit("received", {})
            result: Fields = {"blocks": settings.blocks * settings.layers}
            if settings.corrupt:
                result["corrupted_block"] = cache.flip_block(table)
            token_ns: list[int] = []

            def show(done: int) -> None:
                token_ns.append(time.monotonic_ns())
                emit("token", {"done": done, "of": settings.generate})

            result |= {
                "tokens": model.continue_from(cache, table, show, settings.generate),
                "device": accelerator.name,
                "weights": model.checksum,
                "received_ns": received_ns,
                "first_token_ns": token_ns[0],
                "generate_ms": (token_ns[-1] - received_ns) / 1e6,
                "kv": layer_checksums(cache, table, settings.layers),
            }
        result["recompute_ms"] = _recompute_ms(model, emit)
    return result


def _recompute_ms(model: BigLlama, emit: Emit) -> float:
    """The other way to the first token: this GPU computes the prompt itself. After a warm-up."""
    emit("stage", {"text": "computes the prompt itself, for comparison"})
    taken_ms = []
    for _ in range(1 + RECOMPUTE_REPEATS):
        began_ns = time.monotonic_ns()
        model.first_token()
        taken_ms.append((time.monotonic_ns() - began_ns) / 1e6)
    return statistics.median(taken_ms[1:])


def run_reference(settings: Settings, emit: Emit) -> Fields:
    """The third run, in one process: prefills, pages, and generates from its own blocks.

    Its steps are those of decode, kernel by kernel, as bfloat16 rounds differently in others: what
    differs is only where the blocks came from.
    """
    with plain_errors():
        accelerator = open_device(settings, "decode")
        model = BigLlama(settings, accelerator, emit)
        cache, table = _own_cache(settings, accelerator, model)
        model.continue_from(cache, table, lambda done: None, WARM_UP_TOKENS)  # as decode does
        tokens = model.continue_from(
            cache,
            table,
            lambda done: emit("token", {"done": done, "of": settings.generate}),
            settings.generate,
        )
        return {
            "tokens": tokens,
            "device": accelerator.name,
            "weights": model.checksum,
            "kv": layer_checksums(cache, table, settings.layers),
        }


def _own_cache(
    settings: Settings, accelerator: Accelerator, model: BigLlama
) -> tuple[PagedTensors, Table]:
    cache = PagedTensors(settings, pool_blocks(settings)[1], accelerator.device)
    table = Table(draw_tables(settings).decode, accelerator.device)
    model.prefill(lambda layer, key, value: cache.put(layer, table, key, value))
    return cache, table
