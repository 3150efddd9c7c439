"""Decode's NIC stops taking a write in its middle: a region or a queue pair is gone.

Decode is written in pyverbs here, which can take away what our own decode never would.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rdma_kv import PeerLost, TransferError
from support.wire import Wire
from tests.faults.network.cable import DECODE, PREFILL, Cable
from tests.faults.network.pair import EVERY, SHAPE, SLOW, Pair

PROGRAM = Path(__file__).with_name("breaking_decode.py")


class Decode:
    """The other process, line by line."""

    def __init__(self, breaks: str) -> None:
        sizes = ["--blocks", str(SHAPE.blocks), "--block-bytes", str(SHAPE.block_bytes)]
        # Debian's own Python: the one that python3-pyverbs is for.
        self._process = subprocess.Popen(
            ["/usr/bin/python3", "-I", str(PROGRAM), "--breaks", breaks, *sizes],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = ("127.0.0.1", str(self.says("port")["port"]))

    def says(self, word: str) -> dict[str, Any]:
        """The next line with this word in it."""
        assert self._process.stdout
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            if word in said:
                return said
        raise AssertionError(f"it ended with {self._process.wait()} and never said {word}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@contextmanager
def decode_that(breaks: str) -> Iterator[Decode]:
    decode = Decode(breaks)
    try:
        yield decode
    finally:
        decode.close()


@pytest.mark.parametrize("lane", ["rdma"], indirect=True)
@pytest.mark.parametrize(
    ("breaks", "kind", "causes"),
    [
        ("region", TransferError, ["remote access error", "memory that is no longer registered"]),
        ("queue-pair", PeerLost, ["transport retry counter exceeded", "its queue pair is"]),
    ],
)
def test_the_first_cause_is_told_and_nothing_lands_afterwards(
    lane: Wire, cable: Cable, breaks: str, kind: type[TransferError], causes: list[str]
) -> None:
    # 2^14 * 4.096 us: half a second until seven tries are over.
    pair = Pair(lane, KVCACHE_IB_TIMEOUT="14")
    with decode_that(breaks) as decode:
        assert pair.prefill.connect(decode.address)
        cable.weather(SLOW, PREFILL)

        with pytest.raises(kind) as caught:
            pair.prefill.write(decode.address, EVERY, EVERY, tag=5)

        after = decode.says("ended")
        assert decode.says("later")["digests"] == after["digests"]
        assert decode.says("tags")["tags"] == []
    ends = f"(::ffff:{PREFILL.address}) to ::ffff:{DECODE.address}"
    nic = f"rdma from {PREFILL.nic} port 1 GID 1 {ends}"
    peer = f"to {':'.join(decode.address)}"
    for part in (peer, "128 blocks (local 0..127, remote 0..127)", nic, *causes):
        assert part in str(caught.value)
    assert "Flushed" not in str(caught.value)
    cable.mend()
    pair.works()
