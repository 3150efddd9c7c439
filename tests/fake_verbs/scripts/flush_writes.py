"""Flushes one GPU."""

from __future__ import annotations

import json
import sys

from rdma_kv import RdmaKvError, _core


def main(device: int) -> str:
    try:
        _core.flush_writes(device)
    except RdmaKvError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
