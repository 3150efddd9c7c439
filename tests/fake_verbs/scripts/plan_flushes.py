"""What is decided for each of several sets of GPUs."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rdma_kv import _core


def main(cases: list[tuple[str, list[int], bool | None]]) -> list[Any]:
    out = []
    for gpus, devices, forced in cases:
        os.environ["FAKE_GPUS"] = gpus
        out.append(_core.flush_plan(devices, forced))
    return out


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
