"""What is in the blocks: a number made from region, block and place, so that any byte that went
astray is seen. Worked out on the device, with integers alone: every device gets the same.
"""

from __future__ import annotations

import torch

from .work import Job

_MASK = (1 << 32) - 1
_CHUNK_BYTES = 8 << 20  # of content; the arithmetic takes a few times as much


def fill(pools: list[torch.Tensor], job: Job) -> None:
    """Pools as uint8 [blocks, block_bytes], one for each region."""
    for region, pool in enumerate(pools):
        for first, last in _chunks(job):
            blocks = torch.arange(first, last, device=pool.device)
            pool[first:last] = _content(region, blocks, job)


def first_wrong(pools: list[torch.Tensor], job: Job) -> str | None:
    """Compares every byte, on the device. None: all are right, the blocks between included."""
    for region, pool in enumerate(pools):
        source = torch.from_numpy(job.source_of()).to(pool.device)
        for first, last in _chunks(job):
            wanted = source[first:last]
            expected = _content(region, wanted.clamp(min=0), job)
            expected[wanted < 0] = 0
            if torch.equal(pool[first:last], expected):
                continue
            wrong = (pool[first:last] != expected).any(1).nonzero()[:, 0]
            return f"region {region}, block {first + int(wrong[0])}"
    return None


def _chunks(job: Job) -> list[tuple[int, int]]:
    step = max(1, _CHUNK_BYTES // job.block_bytes)
    return [(i, min(i + step, job.pool_blocks)) for i in range(0, job.pool_blocks, step)]


def _content(region: int, blocks: torch.Tensor, job: Job) -> torch.Tensor:
    """Of these blocks, as uint8 [blocks, block_bytes]."""
    words = torch.arange(job.block_bytes // 4, device=blocks.device)
    mixed = blocks[:, None] * 0x9E3779B1 + words * 0xC2B2AE3D + region * 0x85EBCA77 + 0x27D4EB2F
    mixed &= _MASK
    mixed ^= mixed >> 15
    mixed *= 0x2C1B3C6D
    mixed &= _MASK
    mixed ^= mixed >> 12
    return mixed.to(torch.int32).view(torch.uint8)
