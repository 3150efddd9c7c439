"""What a forked child may not do to the links of its parent."""

from __future__ import annotations

import gc
import os
import time
import warnings
from typing import Any

import numpy as np
import pytest

from rdma_kv import _core
from tests.stream.peers import DecodeProcess, Prefill


def forked(body: Any) -> int:
    """Runs `body` in a forked child and returns the child's pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        pid = os.fork()
    if pid != 0:
        return pid
    try:
        body()
        os._exit(0)
    finally:
        os._exit(1)


def exit_status(pid: int, within_s: float) -> int | None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


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

    pid = forked(drop)
    status = exit_status(pid, 10.0)
    if status is None:
        os.kill(pid, 9)
        os.waitpid(pid, 0)

    assert status == 0, "the child hangs, or died"
    time.sleep(0.5)  # a link that was shut down would be found broken meanwhile
    assert held[0].alive
    held[0].write_wait([1], [2], 0, 1, 1, 10.0)
    assert np.array_equal(decode.call("read")[0, 2], prefill.cache[0, 1])
