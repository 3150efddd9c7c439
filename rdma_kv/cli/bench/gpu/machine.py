"""The GPUs in one line: a number without it is gossip. Asked of nvidia-smi; CUDA stays closed."""

from __future__ import annotations

import subprocess
from importlib import metadata


def gpu_line(source: int, target: int) -> str:
    query = "--query-gpu=index,name,driver_version,memory.total"
    listed = _nvidia_smi(query, "--format=csv,noheader")
    gpus = "; ".join(" ".join(line.split()) for line in listed.splitlines())
    link = link_between(_nvidia_smi("topo", "-m"), source, target)
    return f"torch {_torch()}, GPUs: {gpus or 'nvidia-smi told none'}; {source} to {target}: {link}"


def link_between(matrix: str, source: int, target: int) -> str:
    """Of `nvidia-smi topo -m`: NV18 is 18 NVLinks, PIX to SYS are ways over PCIe."""
    if source == target:
        return "the same GPU"
    columns: list[str] = []
    for line in matrix.splitlines():
        cells = _plain(line).split()
        if not columns and cells[:1] == ["GPU0"]:
            columns = cells
        elif cells[:1] == [f"GPU{source}"] and f"GPU{target}" in columns:
            return cells[1 + columns.index(f"GPU{target}")]
    return "link unknown"


def _plain(line: str) -> str:
    """Without the underlining of the head, which comes even where there is no terminal."""
    return line.replace("\x1b[4m", "").replace("\x1b[0m", "")


def _nvidia_smi(*arguments: str) -> str:
    try:
        ran = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout if ran.returncode == 0 else ""


def _torch() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "missing"
