"""A role's device, opened or refused in words, and what CUDA throws put in words too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from rdma_kv.cli.accelerator import Accelerator, AcceleratorError, gpu_count, open_accelerator
from rdma_kv.cli.demo.paging import pool_blocks
from rdma_kv.cli.demo.settings import CUDA, DemoError, Settings

from .memory import check_fits, needed_bytes


def open_device(settings: Settings, role: Literal["prefill", "decode"]) -> Accelerator:
    """Raises DemoError when there is no such GPU, or too little of its memory is free."""
    try:
        index = settings.prefill_gpu if role == "prefill" else settings.decode_gpu
        if settings.device == CUDA and index < 0:
            index = min(1, gpu_count() - 1)
        accelerator = open_accelerator(settings.device, index)
    except AcceleratorError as error:
        raise DemoError(f"--device {settings.device}: {error}") from None
    blocks = pool_blocks(settings)[0 if role == "prefill" else 1]
    check_fits(needed_bytes(settings, blocks), accelerator.free_bytes(), accelerator.name)
    return accelerator


@contextmanager
def plain_errors() -> Iterator[None]:
    """CUDA's errors are RuntimeErrors with a page of advice: the first line and ours will do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DemoError(
            f"the GPU's memory is full: {_first_line(error)}; take fewer --layers or "
            "--prompt-tokens, or end what else runs there (`nvidia-smi`)"
        ) from error
    except RuntimeError as error:
        if "CUDA" not in str(error) and "CUBLAS" not in str(error):
            raise
        raise DemoError(f"CUDA failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
