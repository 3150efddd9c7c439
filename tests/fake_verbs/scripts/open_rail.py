"""Opens a rail on the fake NIC for the given regions, and says what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rdma_kv import _core


def buffers() -> int:
    """Dma-bufs that are open here."""
    links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum("fake dma-buf" in str(link.readlink()) for link in links)


def main(
    bases: list[int],
    devices: list[int],
    blocks: int = 1,
    block_bytes: int = 4096,
    stride_bytes: int = 0,
    **options: Any,
) -> dict[str, Any]:
    tensor = (0, block_bytes, stride_bytes or block_bytes)
    geometry = _core.Geometry(len(bases), blocks, [tensor])
    engine = _core.Engine(_core.Layout(geometry, bases, devices))
    given = {"gid_index": -1, "ib_timeout": 18, "relaxed_ordering": False, "remote_read": False}
    try:
        rail = _core.RdmaRail(engine, "fake0", **{**given, **options})
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error), "buffers": buffers()}
    return {
        "gpu_memory": rail.gpu_memory,
        "describe": rail.describe(),
        "rkeys": rail.rkeys,
        "buffers": buffers(),
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
