"""How NICs get at the memory of this machine's GPUs: what the doctor reports of it."""

from __future__ import annotations

from typing import Any

from rdma_kv import Config, RdmaKvError, _core
from rdma_kv._rails import open_rails

# One GPU page of the largest kind: the smallest piece that every driver exports.
_PROBE_BYTES = 2 << 20
_ORDERINGS = {
    0: "does not order writes of a NIC",
    100: "orders writes of a NIC for its own kernels",
    200: "orders writes of a NIC for all GPUs",
}


def facts(config: Config) -> dict[str, str]:
    """One row for the kernel module, one for the GPUs, one for each GPU with its NIC."""
    try:
        devices = _core.gpu_direct_devices()
    except RdmaKvError as error:
        return {"GPUs": f"none: {error}"}
    module = _core.peer_memory_module()
    return {
        "GPUs": "\n".join(_describe(device) for device in devices) or "none",
        "nvidia-peermem": f"loaded as {module}" if module else "not loaded, or not visible here",
        **{f"GPU {index} over rdma": _try(index, config) for index in range(len(devices))},
    }


def _describe(device: dict[str, Any]) -> str:
    ordering = device["ordering"]
    flush_options = device["flush_options"]
    return "; ".join(
        (
            str(device["name"]),
            f"dma-buf {_yes_or_no(device['dma_buf'])}",
            f"peer memory {_yes_or_no(device['peer_memory'])}",
            _ORDERINGS.get(ordering, f"order of writes unknown ({ordering})"),
            "has its own flush" if (flush_options or 0) & 1 else "no flush of its own",
        )
    )


def _yes_or_no(answer: int | None) -> str:
    return "unknown to this driver" if answer is None else "yes" if answer else "no"


def _try(gpu: int, config: Config) -> str:
    """Registers a little memory of the GPU with the NIC that a communicator would take for it."""
    try:
        memory = _core.ProbeMemory(gpu, _PROBE_BYTES)
        geometry = _core.Geometry(1, 1, [(0, _PROBE_BYTES, _PROBE_BYTES)])
        layout = _core.Layout(geometry, [memory.address], [gpu])
        engine = _core.Engine(layout)
        try:
            rails, why_none = open_rails(engine, config, gpu, is_written_to=True)
            answer = rails[0].describe() if rails else f"no: {why_none}"
            rails.clear()
        finally:
            engine.close(1.0)
    except (RdmaKvError, ValueError) as error:
        return f"no: {error}"
    return answer
