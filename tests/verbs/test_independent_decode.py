"""Our prefill against a decode side that shares no code with it: docs/wire.md is what both know."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdma_kv import Config, RDMACommunicator

pytestmark = pytest.mark.vm

PEER = Path(__file__).with_name("pyverbs_decode.py")
LAYERS, BLOCKS, BLOCK_BYTES, FILL = 2, 32, 4096, 7


class Decode:
    """The other process, line by line."""

    def __init__(self, *options: str) -> None:
        # Debian's own Python: the one that python3-pyverbs is for. Of its environment it needs
        # nothing, and must not find our package.
        self._process = subprocess.Popen(
            ["/usr/bin/python3", "-I", str(PEER), *options], stdout=subprocess.PIPE, text=True
        )

    def says(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"it ended with status {self._process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@contextmanager
def independent_decode(*options: str) -> Iterator[Decode]:
    decode = Decode(*options)
    try:
        yield decode
    finally:
        decode.close()


class Model:
    """What each side's memory must hold: region = layer * 2 + (0 key, 1 value)."""

    def __init__(self) -> None:
        noise = np.random.default_rng(11)
        shape = (LAYERS * 2, BLOCKS, BLOCK_BYTES)
        self.local = noise.integers(0, 256, shape, dtype=np.uint8)
        self.remote = np.full(shape, FILL, np.uint8)

    def write(self, src: Any, dst: Any, layers: range) -> None:
        for layer in layers:
            for region in (2 * layer, 2 * layer + 1):
                self.remote[region, dst] = self.local[region, src]

    def digests(self) -> list[str]:
        return [hashlib.sha256(region.tobytes()).hexdigest() for region in self.remote]

    def prefill(self, qps: int) -> RDMACommunicator:
        settings = {
            "KVCACHE_TRANSPORT": "rdma",
            "KVCACHE_RDMA_NICS": "rxe0",
            "KVCACHE_QPS_PER_PEER": str(qps),
        }
        return RDMACommunicator(
            role="prefill",
            gpu_idx=-1,
            port="0",
            local_key_cache=list(self.local[0::2]),
            local_value_cache=list(self.local[1::2]),
            block_number=BLOCKS,
            block_bytes=BLOCK_BYTES,
            config=Config.from_env(settings),
        )


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("qps", [1, 3])
def test_a_decode_side_written_after_the_document_sees_bytes_and_notices(
    qps: int, flush: bool
) -> None:
    model = Model()
    noise = np.random.default_rng(13)
    with independent_decode(*(["--flush"] if flush else [])) as decode, model.prefill(qps) as comm:
        port = decode.says()["port"]
        assert comm.connect("127.0.0.1", port)
        assert decode.says() == {"welcomed": True}

        for tag in (1, 0x01020304, 2**32 - 1):
            src, dst = noise.permutation(BLOCKS)[:20], noise.permutation(BLOCKS)[:20]
            model.write(src, dst, range(LAYERS))
            comm.write_cache_async("127.0.0.1", port, src, dst, tag=tag).wait()
            assert decode.says() == {"tag": tag, "digests": model.digests()}

        model.write([3], [4], range(1, 2))
        comm.write_cache("127.0.0.1", port, [3], [4], 1)  # no tag: nobody is told
        comm.write_cache_async("127.0.0.1", port, [], [], tag=9).wait()
        assert decode.says() == {"tag": 9, "digests": model.digests()}

        comm.disconnect("127.0.0.1", port)
        said = [decode.says()]
        while "ended" not in said[-1]:
            said.append(decode.says())
        assert said[-1] == {"ended": True, "digests": model.digests()}
        assert all(line == {"message": "bye"} for line in said[:-1])
