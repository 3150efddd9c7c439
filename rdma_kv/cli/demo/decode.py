"""The decode side: waits for the notice, then uses what lies in its blocks and nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rdma_kv import RDMACommunicator, TransferTimeout

from .events import Emit, Fields
from .paging import Ids, PagedCache, draw_tables, pool_blocks
from .recording import Recording
from .settings import DemoError, Settings
from .sides import open_communicator
from .source import load_model, open_source

if TYPE_CHECKING:
    from .model import Llama


def run_decode(settings: Settings, port: str, emit: Emit) -> Fields:
    """Plays the role once: {"tokens": [...]}, or of a recording {"differing": [...]}."""
    source, settings = open_source(settings)
    cache = PagedCache(settings, pool_blocks(settings)[1])
    table = draw_tables(settings).decode
    emit("ready", {"text": source.describe()})
    with open_communicator("decode", port, cache, settings) as comm:
        emit("listening", {"port": str(comm.port)})
        await_last_write(comm, settings)
        emit("received", {})
        received_ns = time.monotonic_ns()
        result: Fields = {"blocks": settings.blocks * settings.layers}
        if settings.corrupt:
            result["corrupted_block"] = cache.flip_block(table)
        if isinstance(source, Recording):
            result["differing"] = source.differing(cache, table)
        else:
            result["tokens"] = generate(source, cache, table, settings, emit)
            result["generate_ms"] = (time.monotonic_ns() - received_ns) / 1e6
    return result


def generate(
    model: Llama, cache: PagedCache, table: Ids, settings: Settings, emit: Emit
) -> list[int]:
    # The prompt's last token is run again, so its own K and V are left out.
    kept = settings.prompt_tokens - 1
    layers = [cache.get(layer, table, kept) for layer in range(settings.layers)]
    tokens: list[int] = model.continue_from(
        layers, lambda done: emit("token", {"done": done, "of": settings.generate})
    )
    return tokens


def await_last_write(comm: RDMACommunicator, settings: Settings) -> None:
    """Looks now and then whether prefill's last write has come, but with another run's tag."""
    deadline = time.monotonic() + settings.timeout_s
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        try:
            comm.received(settings.tag, timeout_s=min(left_s, 1.0))
        except TransferTimeout as error:
            notices = comm.poll_received()
            if any(notice.tag == settings.tag for notice in notices):
                return
            if notices:
                drawn = f", or drew other weights than {settings.weights}" * bool(settings.weights)
                raise DemoError(
                    f"{notices[0].peer} wrote a run with other parameters than ours "
                    f"({settings.shape()}){drawn}; start both sides with the same --layers, "
                    "--prompt-tokens, --block-tokens and --seed"
                    + ", on GPUs of one kind"
                    * bool(drawn)
                ) from error
            if left_s == 0:
                connected = str(error).partition("; ")[2]
                raise DemoError(
                    f"decode waited {settings.timeout_s:g} s in vain for prefill's last write; "
                    + connected
                ) from error
        else:
            return


def run_reference(settings: Settings, emit: Emit) -> Fields:
    """The third run, in one process, with no transfer: the tokens that are right."""
    tokens = load_model(settings).reference(
        lambda done: emit("token", {"done": done, "of": settings.generate})
    )
    return {"tokens": tokens}
