"""Two sides in one process, over the loopback transport, and a patient wait."""

from __future__ import annotations

import time

import numpy as np

from rdma_kv import Config

LAYERS, BLOCKS, BLOCK_BYTES = 2, 8, 64
LOOPBACK = Config(transport="loopback")
HOST = "127.0.0.1"


def cache(layers=LAYERS, block_bytes=BLOCK_BYTES, value=0):
    return [np.full((BLOCKS, block_bytes), value, np.uint8) for _ in range(layers)]


def eventually(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
