"""What the doctor says of the fake GPUs."""

from __future__ import annotations

import json
import sys

from rdma_kv import Config
from rdma_kv.cli import gpu_direct


def main(environment: dict[str, str]) -> dict[str, str]:
    return gpu_direct.facts(Config.from_env(environment))


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
