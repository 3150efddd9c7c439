"""What a communicator needs of CUDA, when its blocks are on a GPU, and why it has none."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path

from rdma_kv import _core
from rdma_kv._config import Config
from rdma_kv._errors import RdmaKvError, TransportUnavailable
from rdma_kv._side import STAGED

logger = logging.getLogger("rdma_kv")

HOST_MEMORY = "the blocks are in host memory"


def open_cuda(
    engine: _core.Engine, config: Config, *, is_written_to: bool
) -> tuple[_core.CudaExports | None, str]:
    """Prepares the `cuda_ipc` transport: decode exports its memory, prefill compiles its kernel.

    Returns:
        Decode's exports, and why this side cannot use the transport; empty when it can.

    Raises:
        TransportUnavailable: KVCACHE_TRANSPORT=cuda_ipc, and this side cannot.
    """
    if config.transport not in ("auto", "cuda_ipc"):
        return None, f"KVCACHE_TRANSPORT={config.transport} on this side"
    if all(device < 0 for _, _, device in engine.layout.regions):
        return None, HOST_MEMORY
    try:
        if is_written_to:
            return _core.CudaExports(engine), ""
        _core.set_nvrtc_candidates([str(path) for path in nvrtc_candidates()])
        _core.cuda_ipc_check(engine)
    except RdmaKvError as error:
        if config.transport == "cuda_ipc":
            raise TransportUnavailable(f"KVCACHE_TRANSPORT=cuda_ipc: {error}") from error
        logger.warning("cuda_ipc is not used: %s", error)
        return None, str(error)
    return None, ""


def open_staging(engine: _core.Engine, config: Config) -> tuple[_core.Staging | None, str]:
    """Prepares to carry blocks through host memory, where they are, or the peer's are, on a GPU.

    Returns:
        What that takes, or why this side cannot.

    Raises:
        TransportUnavailable: KVCACHE_TRANSPORT names a transport that needs it, and this side
            cannot.
    """
    if config.transport not in ("auto", *STAGED):
        return None, f"KVCACHE_TRANSPORT={config.transport} on this side"
    try:
        if any(device >= 0 for _, _, device in engine.layout.regions):
            _core.set_nvrtc_candidates([str(path) for path in nvrtc_candidates()])
        return _core.Staging(engine), ""
    except RdmaKvError as error:
        if config.transport != "auto":
            raise TransportUnavailable(f"KVCACHE_TRANSPORT={config.transport}: {error}") from error
        return None, str(error)


def nvrtc_candidates() -> list[Path]:
    """Where CUDA's run-time compiler may be besides the linker's own places, newest first.

    NVIDIA's wheels keep it in `nvidia/cu13/lib` or `nvidia/cuda_nvrtc/lib`, a toolkit in its
    `lib64`.
    """
    folders = []
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        spec = None
    for root in (spec.submodule_search_locations or []) if spec else []:
        folders += [Path(root) / "cu13" / "lib", Path(root) / "cuda_nvrtc" / "lib"]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(name):
            folders.append(Path(home) / "lib64")
    folders.append(Path("/usr/local/cuda/lib64"))
    found = [path for folder in folders for path in folder.glob("libnvrtc.so.*")]
    # "libnvrtc.so.13" before "libnvrtc.so.12"; files of builtins have another name.
    return sorted((p for p in found if p.is_file()), key=_version, reverse=True)


def _version(path: Path) -> tuple[int, ...]:
    parts = path.name.removeprefix("libnvrtc.so.").split(".")
    return tuple(int(part) for part in parts if part.isdigit())
