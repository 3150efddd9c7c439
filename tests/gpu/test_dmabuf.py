"""The CUDA half of what a NIC needs of a GPU, on a real one: exports, write order, flush.

Run with -s to see what the GPUs report.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from rdma_kv import Config, TransportUnavailable, _core
from rdma_kv.cli import gpu_direct
from support import cuda
from support.patience import scaled

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20
OWNER = 100  # CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER
BY_HOST = 1  # CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST


def devices() -> tuple[list[dict[str, Any]], str]:
    try:
        return _core.gpu_direct_devices(), "the driver knows no device"
    except TransportUnavailable as error:
        return [], str(error)


GPUS, WHY_NONE = devices()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason=f"no GPU: {WHY_NONE}"),
    pytest.mark.skipif(cuda.is_fake(), reason="about the driver itself, and this one is fake"),
]
every_gpu = pytest.mark.parametrize("gpu", range(len(GPUS)))


def exported(address: int, size: int, gpu: int) -> _core.DmaBuf:
    """A dma-buf; a GPU that exports none must say so, and that ends the test."""
    if GPUS[gpu]["dma_buf"]:
        return _core.DmaBuf(address, size, gpu)
    with pytest.raises(TransportUnavailable, match="exports none") as refused:
        _core.DmaBuf(address, size, gpu)
    pytest.skip(f"this machine's driver exports no dma-buf: {refused.value}")


def size_of(buffer: _core.DmaBuf) -> int:
    return os.lseek(buffer.fd, 0, os.SEEK_END)


@every_gpu
def test_a_gpu_tells_what_it_can(gpu: int) -> None:
    print(f"\n{GPUS[gpu]}")

    assert GPUS[gpu]["name"].startswith(f"CUDA device {gpu} (")
    # Drivers of CUDA 11.7 and newer know all four.
    assert all(GPUS[gpu][name] is not None for name in ("dma_buf", "ordering", "flush_options"))


@every_gpu
@pytest.mark.parametrize(
    ("offset", "size", "pages"),
    [(0, 4 * MIB, 4 * MIB // PAGE), (512, PAGE, 2), (3 * PAGE, PAGE, 1), (2 * MIB - 1, 2, 2)],
)
def test_whole_pages_around_a_range_are_exported(
    gpu: int, offset: int, size: int, pages: int
) -> None:
    memory = _core.ProbeMemory(gpu, 4 * MIB)

    buffer = exported(memory.address + offset, size, gpu)

    assert buffer.offset == (memory.address + offset) % PAGE
    assert buffer.bytes == size_of(buffer) == pages * PAGE


@every_gpu
def test_a_buffer_outlives_the_allocation_and_closes_with_its_owner(gpu: int) -> None:
    memory = _core.ProbeMemory(gpu, 2 * MIB)
    buffer = exported(memory.address, 2 * MIB, gpu)
    fd, inode = buffer.fd, os.fstat(buffer.fd).st_ino

    del memory
    gc.collect()

    assert size_of(buffer) == 2 * MIB
    del buffer
    gc.collect()
    with contextlib.suppress(OSError):  # closed, or another thread has it for something else
        assert os.fstat(fd).st_ino != inode


def test_a_range_that_leaves_its_allocation_is_refused() -> None:
    memory = _core.ProbeMemory(0, 2 * MIB)
    exported(memory.address, 2 * MIB, 0)

    with pytest.raises(TransportUnavailable, match="span several allocations: the first ends af"):
        _core.DmaBuf(memory.address, 1 << 40, 0)


def test_host_memory_is_refused() -> None:
    host = bytearray(PAGE)

    with pytest.raises(TransportUnavailable):
        _core.DmaBuf(id(host), PAGE, 0)


# Torch hands out pieces of larger allocations; with expandable segments these are mapped by hand.
TORCH = """
import json, os, sys
import torch
from rdma_kv import RdmaKvError, _core
kept = torch.zeros(1000, dtype=torch.uint8, device="cuda:0")
tensor = torch.zeros(int(sys.argv[1]), dtype=torch.uint8, device="cuda:0")
said = {"address": tensor.data_ptr()}
try:
    buffer = _core.DmaBuf(tensor.data_ptr(), tensor.numel(), 0)
    said |= {"offset": buffer.offset, "bytes": buffer.bytes,
             "size": os.lseek(buffer.fd, 0, os.SEEK_END)}
except RdmaKvError as error:
    said["refused"] = str(error)
print(json.dumps(said))
"""


def torch_says(size: int, allocator: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", TORCH, str(size)],
        env={**os.environ, "PYTORCH_CUDA_ALLOC_CONF": allocator, "PYTORCH_ALLOC_CONF": allocator},
        capture_output=True,
        text=True,
        timeout=scaled(100),
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{allocator}, {size} bytes: {said}")
    return said


def check_pages(said: dict[str, Any], size: int) -> None:
    assert said["offset"] == said["address"] % PAGE
    pages = -(-(said["offset"] + size) // PAGE)
    assert said["bytes"] == said["size"] == pages * PAGE


@pytest.mark.parametrize("size", [512, 100_000, 64 * MIB])
def test_a_tensor_of_torch_is_exported(size: int) -> None:
    if not GPUS[0]["dma_buf"]:
        pytest.skip("this machine's driver exports no dma-buf")

    check_pages(torch_says(size, "expandable_segments:False"), size)


# 100 MB are several pieces of 2 or 20 MiB, mapped one after the other.
@pytest.mark.parametrize("size", [100_000, 100 * MIB])
def test_an_expandable_segment_is_exported_or_refused_with_a_reason(size: int) -> None:
    said = torch_says(size, "expandable_segments:True")

    if "refused" in said:
        assert said["refused"].startswith(
            ("cuMemGetHandleForAddressRange: CUDA_ERROR_", "CUDA dev")
        )
    else:
        check_pages(said, size)


@every_gpu
def test_the_flush_follows_what_the_gpu_reports(gpu: int) -> None:
    by_reading, is_enough, reason = _core.flush_plan([gpu], None)
    print(f"\n{reason}")

    assert by_reading == (GPUS[gpu]["ordering"] < OWNER)
    assert is_enough
    assert GPUS[gpu]["name"] in reason


@every_gpu
def test_the_receivers_own_flush_succeeds(gpu: int) -> None:
    if not GPUS[gpu]["flush_options"] & BY_HOST:
        pytest.skip(f"{GPUS[gpu]['name']} has none")
    memory = _core.ProbeMemory(gpu, 2 * MIB)  # keeps the context, whose making takes long
    _core.flush_writes(gpu)

    started = time.perf_counter()
    for _ in range(1000):
        _core.flush_writes(gpu)

    print(f"\n{GPUS[gpu]['name']}: {(time.perf_counter() - started) * 1e3:.2f} us a flush")
    del memory


def test_the_doctor_tells_of_every_gpu_why_rdma_reaches_it_or_not() -> None:
    facts = gpu_direct.facts(Config())
    print("", *(f"{name}: {value}" for name, value in facts.items()), sep="\n")

    assert len(facts["GPUs"].splitlines()) == len(GPUS)
    for index in range(len(GPUS)):
        said = facts[f"GPU {index} over rdma"]
        assert "GPU memory through " in said or said.startswith("no: ")
