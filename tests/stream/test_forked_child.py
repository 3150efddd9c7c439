"""What a forked child may not do to the links of its parent."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

from rdma_kv import _core
from support.forked import exit_status, forked
from tests.stream.peers import DecodeProcess, Prefill


@pytest.mark.parametrize("transport", ["tcp", "cma"])
def test_a_forked_child_that_drops_its_copy_harms_nobody(
    decode: DecodeProcess, prefill: Prefill, transport: str
) -> None:
    held: list[Any] = [prefill.open(decode, transport)]
    held.append(_core.Engine(prefill.shape.layout(prefill.cache)))
    held[1].listen("127.0.0.1", 0)
    engine = prefill.engine

    def drop() -> None:
        nonlocal engine
        del prefill.engine, engine
        held.clear()
        gc.collect()

    status = exit_status(forked(drop), 10.0)

    assert status == 0, "the child hangs, or died"
    time.sleep(0.5)  # a link that was shut down would be found broken meanwhile
    assert held[0].alive
    held[0].write_wait([1], [2], 0, 1, 1, 10.0)
    assert np.array_equal(decode.call("read")[0, 2], prefill.cache[0, 1])
