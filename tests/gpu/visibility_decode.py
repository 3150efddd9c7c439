"""Decode's side of the proof that done means visible: a kernel that polls nothing checks all bytes.

One line on standard output says the port; each line on standard input is a round's value, and is
answered once the kernel that compares has been launched and is over. The end of the input is
answered with the number of bytes that were wrong.
"""

from __future__ import annotations

import sys

import torch

from rdma_kv import Config, RDMACommunicator


def main(gpu: int, transport: str, blocks: int, block_bytes: int) -> None:
    device = torch.device("cuda", gpu)
    pool = torch.zeros((blocks, block_bytes), dtype=torch.uint8, device=device)
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    torch.cuda.synchronize(device)
    with RDMACommunicator(
        role="decode",
        gpu_idx=gpu,
        port="0",
        local_key_cache=[pool],
        local_value_cache=[],
        block_number=blocks,
        block_bytes=block_bytes,
        config=Config.from_env({"KVCACHE_TRANSPORT": transport}),
    ) as comm:
        print(comm.port, flush=True)
        for line in sys.stdin:
            comm.received(1, 20)
            wrong += (pool != int(line)).sum()  # launched behind nothing but the notice
            torch.cuda.synchronize(device)  # prefill may write again
            print(flush=True)
        print(int(wrong), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
