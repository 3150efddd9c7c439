"""A whole communicator on the fake NIC: its log, and what it offers."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Literal

from rdma_kv import Config, RDMACommunicator, RdmaKvError
from rdma_kv._offers import make_offering

lines: list[str] = []


class Kept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        lines.append(f"{record.levelname} {record.getMessage()}")


def main(
    role: Literal["prefill", "decode"], keys: list[int], environment: dict[str, str]
) -> dict[str, Any]:
    logger = logging.getLogger("rdma_kv")
    logger.setLevel(logging.INFO)
    logger.addHandler(Kept())
    try:
        comm = RDMACommunicator(
            role=role,
            gpu_idx=0,
            port="0",
            local_key_cache=keys,
            local_value_cache=[],
            block_number=1,
            block_bytes=4096,
            config=Config.from_env({"KVCACHE_SOCKET_IFNAME": "lo", **environment}),
        )
    except RdmaKvError as error:
        return {"error": f"{type(error).__name__}: {error}", "log": lines}
    with comm:
        side = comm._parts.side
        offer = make_offering(side).offers.rdma
        return {
            "flush": None if offer is None else offer.flush,
            "no_rdma": side.no_rdma,
            "rails": [rail.describe() for rail in side.rails],
            "log": list(lines),
        }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
