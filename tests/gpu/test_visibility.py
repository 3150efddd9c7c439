"""Done means visible: a kernel started after the notice reads the new bytes, every time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rdma_kv import Config, RDMACommunicator
from support.patience import scaled

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

DECODE = Path(__file__).with_name("visibility_decode.py")
BLOCKS, BLOCK_BYTES = 256, 1024
ROUNDS = int(os.environ.get("RDMA_KV_VISIBILITY_ROUNDS", "10000"))


@pytest.fixture
def gpu_count() -> int:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.cuda.device_count()


@pytest.mark.parametrize("transport", ["cuda_ipc", "tcp"])
def test_a_kernel_behind_the_notice_reads_the_new_bytes(gpu_count: int, transport: str):
    import torch

    rounds = ROUNDS if transport == "cuda_ipc" else ROUNDS // 10
    command = [sys.executable, str(DECODE), str(gpu_count - 1), transport]
    decode = subprocess.Popen(
        [*command, str(BLOCKS), str(BLOCK_BYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert decode.stdin
    assert decode.stdout
    pool = torch.zeros((BLOCKS, BLOCK_BYTES), dtype=torch.uint8, device="cuda:0")
    event = torch.cuda.Event()
    shuffled = np.random.default_rng(7).permutation(BLOCKS)
    everything = np.arange(BLOCKS)
    try:
        port = decode.stdout.readline().strip()
        with RDMACommunicator(
            role="prefill",
            gpu_idx=0,
            port="0",
            local_key_cache=[pool],
            local_value_cache=[],
            block_number=BLOCKS,
            block_bytes=BLOCK_BYTES,
            config=Config.from_env({"KVCACHE_TRANSPORT": transport}),
        ) as comm:
            comm.connect("127.0.0.1", port)
            for turn in range(rounds):
                value = 1 + turn % 255
                pool.fill_(value)
                event.record()
                transfer = comm.write_cache_async(
                    "127.0.0.1", port, everything, shuffled, tag=1, after=event
                )
                decode.stdin.write(f"{value}\n")
                decode.stdin.flush()
                transfer.wait(scaled(20))
                assert decode.stdout.readline() == "\n", "decode has ended; its error is above"
            decode.stdin.close()
            assert int(decode.stdout.readline()) == 0
    finally:
        decode.kill()
        decode.wait()
