"""A decode that is written to, takes its notices, and tells a checksum at the end."""

from __future__ import annotations

import select
import zlib
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np

from rdma_kv import Config, RDMACommunicator
from rdma_kv.cli.bench.work import Bytes
from rdma_kv.cli.local import local_environment

from .settings import BLOCK_BYTES, POOL_BLOCKS


def communicator(
    role: Literal["prefill", "decode"], pool: Bytes, transport: str
) -> RDMACommunicator:
    return RDMACommunicator(
        role,
        -1,
        "0",
        [pool],
        [],
        POOL_BLOCKS,
        BLOCK_BYTES,
        config=Config.from_env({**local_environment(), "KVCACHE_TRANSPORT": transport}),
    )


def run(pipe: Connection, transport: str) -> None:
    pool = np.zeros((POOL_BLOCKS, BLOCK_BYTES), np.uint8)
    with communicator("decode", pool, transport) as comm:
        pipe.send(comm.port)
        sources: list[Any] = [comm.fileno(), pipe]
        while True:
            readable, _, _ = select.select(sources, [], [])
            comm.poll_received()
            if pipe in readable:
                pipe.recv()
                pipe.send(zlib.crc32(pool.tobytes()))
