"""Writes whose arguments misbehave while the engine reads them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rdma_kv import _core
from support.cache import Shape
from support.joined import Node
from support.patience import scaled


@pytest.mark.skipif(
    "thread" in _core.features()["sanitize"], reason="the race is the caller's, and on purpose"
)
def test_ids_that_change_while_they_are_read_harm_nobody():
    shape = Shape(layers=1, blocks=1 << 20, block_bytes=1)
    good = np.arange(shape.blocks, dtype=np.int64)
    bad = np.full_like(good, (1 << 31) - 1)
    ids = good.copy()
    is_over = threading.Event()
    refused = []

    def change() -> None:
        while not is_over.is_set():
            ids[:] = bad
            ids[:] = good

    with Node(shape, 1) as prefill, Node(shape, 2) as decode:
        link = prefill.open(decode)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(100):
                try:
                    link.write_wait(good, ids, 0, 1, 0, scaled(30))
                except ValueError as error:
                    refused.append(str(error))
        finally:
            is_over.set()
            thread.join()
        assert all("remote block id" in why for why in refused)
        link.write_wait(good, good, 0, 1, 0, scaled(30))  # no mark was left behind
