"""How GPU memory is registered with a NIC: against FAKES of libibverbs and libcuda."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GPU = 0x100000000000  # where the fakes have their GPUs' memory
HOST = 0x200000000000
PAGE = 4096
CAP = 64 << 20  # bytes of the one allocation

LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, RELAXED_ORDERING = 1, 2, 4, 1 << 20

Machines = Callable[..., Any]


def one(start: int = GPU, size: int = CAP, device: int = 0, kind: str = "plain") -> str:
    return f"{start:#x}:{size}:{device}:{kind}"


def exports(fakes: Any) -> list[dict[str, int]]:
    return fakes.calls("cuMemGetHandleForAddressRange")


def gpu_regions(fakes: Any) -> list[dict[str, int]]:
    """What ibv_reg_dmabuf_mr was given, but for the buffer's identity."""
    calls = fakes.calls("ibv_reg_dmabuf_mr")
    return [{name: call[name] for name in call if name != "buffer"} for call in calls]


def plain_regions(fakes: Any) -> list[dict[str, int]]:
    """What was registered by its address; the rail's own 8 bytes left out."""
    calls = fakes.calls("ibv_reg_mr", "ibv_reg_mr_iova2")
    return [call for call in calls if call["bytes"] != 8]


@pytest.mark.parametrize(
    ("offset", "size", "pages"),
    [
        (0, PAGE, 1),
        (0, 1, 1),
        (512, PAGE, 2),
        (PAGE - 1, 1, 1),
        (PAGE - 1, 2, 2),
        (3 * PAGE, 2 * PAGE, 2),
        (2 * PAGE + 16, 10 * PAGE - 16, 10),
    ],
)
def test_whole_pages_are_exported_and_the_region_lies_at_its_offset(
    machine: Machines, offset: int, size: int, pages: int
) -> None:
    fakes = machine(FAKE_GPU_ALLOCATIONS=one(device=1), FAKE_GPUS="200,1,1,1;200,1,1,1")

    rail = fakes.run("open_rail.py", bases=[GPU + offset], devices=[1], block_bytes=size)

    assert rail["gpu_memory"] == "GPU memory through dma-buf"
    assert exports(fakes) == [
        {
            "address": GPU + offset - offset % PAGE,
            "bytes": pages * PAGE,
            "type": 1,
            "flags": 0,
            "context": 2,  # of device 1
        }
    ]
    assert gpu_regions(fakes) == [
        {
            "offset": offset % PAGE,
            "bytes": size,
            "iova": GPU + offset,
            "access": LOCAL_WRITE | REMOTE_WRITE,
            "buffer_bytes": pages * PAGE,
        }
    ]
    assert plain_regions(fakes) == []


def test_nothing_is_left_behind(machine: Machines) -> None:
    fakes = machine(FAKE_GPU_ALLOCATIONS=one())

    rail = fakes.run("open_rail.py", bases=[GPU, GPU + 3 * PAGE], devices=[0, 0])

    assert rail["buffers"] == 0  # closed while the NIC uses them: the kernel holds them
    regions = len(fakes.calls("ibv_reg_dmabuf_mr", "ibv_reg_mr", "ibv_reg_mr_iova2"))
    assert regions == 3
    assert fakes.count("ibv_dereg_mr") == regions
    retained = fakes.calls("cuDevicePrimaryCtxRetain")
    assert retained
    assert fakes.calls("cuDevicePrimaryCtxRelease") == retained


@pytest.mark.parametrize(
    ("options", "access"),
    [
        ({}, LOCAL_WRITE | REMOTE_WRITE),
        ({"remote_write": False}, LOCAL_WRITE),
        ({"remote_read": True}, LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ),
        ({"relaxed_ordering": True}, LOCAL_WRITE | REMOTE_WRITE | RELAXED_ORDERING),
    ],
)
@pytest.mark.parametrize("way", ["dma-buf", "nvidia-peermem"])
def test_access_is_what_the_side_needs_by_either_way(
    machine: Machines, options: dict[str, bool], access: int, way: str
) -> None:
    refusals = {} if way == "dma-buf" else {"FAKE_EXPORT": 801, "FAKE_REG_GPU_ADDRESS": 0}
    fakes = machine(FAKE_GPU_ALLOCATIONS=one(), **refusals)

    rail = fakes.run("open_rail.py", bases=[GPU], devices=[0], **options)

    assert rail["gpu_memory"].startswith(f"GPU memory through {way}")
    regions = gpu_regions(fakes) if way == "dma-buf" else plain_regions(fakes)
    assert [region["access"] for region in regions] == [access]


# A limit that is no power of two cuts at the one below it.
@pytest.mark.parametrize("limit", [4 * PAGE, 5 * PAGE])
@pytest.mark.parametrize("by", ["the NIC", "the option"])
def test_chunks_of_a_region_are_cut_from_one_export(machine: Machines, limit: int, by: str) -> None:
    knob = {"FAKE_MAX_MR_SIZE": limit} if by == "the NIC" else {}
    option = {"most_mr_bytes": limit} if by == "the option" else {}
    fakes = machine(FAKE_GPU_ALLOCATIONS=one(), **knob)
    base, chunk = GPU + 512, 4 * PAGE

    rail = fakes.run(
        "open_rail.py", bases=[base], devices=[0], blocks=9, block_bytes=PAGE, **option
    )

    same = {"access": LOCAL_WRITE | REMOTE_WRITE, "buffer_bytes": 10 * PAGE}
    assert gpu_regions(fakes) == [
        {"offset": 512, "bytes": chunk, "iova": base, **same},
        {"offset": 512 + chunk, "bytes": chunk, "iova": base + chunk, **same},
        {"offset": 512 + 2 * chunk, "bytes": PAGE, "iova": base + 2 * chunk, **same},
    ]
    assert len(exports(fakes)) == 1
    assert len({call["buffer"] for call in fakes.calls("ibv_reg_dmabuf_mr")}) == 1
    assert len(set(rail["rkeys"])) == 3


def test_the_tail_of_the_last_stride_has_a_key_and_no_region(machine: Machines) -> None:
    fakes = machine(FAKE_GPU_ALLOCATIONS=one(), FAKE_MAX_MR_SIZE=4 * PAGE)

    rail = fakes.run(
        "open_rail.py",
        bases=[GPU],
        devices=[0],
        blocks=2,
        block_bytes=PAGE,
        stride_bytes=5 * PAGE,
    )

    assert [region["bytes"] for region in gpu_regions(fakes)] == [4 * PAGE, 2 * PAGE]
    first, second, tail = rail["rkeys"]
    assert first != second == tail


REFUSED = [
    (
        {"verbs": "old verbs"},
        "libibverbs has no ibv_reg_dmabuf_mr; one of rdma-core 34 or newer is needed",
    ),
    (
        {"cuda": "old cuda"},
        "the NVIDIA driver has no cuMemGetHandleForAddressRange; one of CUDA 11.7 or newer is "
        "needed",
    ),
    (
        {"FAKE_GPUS": "200,1,0,1"},
        "CUDA device 0 (Fake GPU) exports none (CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED is not set); "
        "NVIDIA's open kernel modules and Linux 5.12 or newer are needed",
    ),
    (
        {"FAKE_GPUS": "200,1,-,1"},
        "CUDA device 0 (Fake GPU) exports none (CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED is not set); "
        "NVIDIA's open kernel modules and Linux 5.12 or newer are needed",
    ),
    (
        {"FAKE_EXPORT": 801},
        "cuMemGetHandleForAddressRange: CUDA_ERROR_OF_THE_FAKE (words of the fake), 8192 bytes at "
        "0x100000000000",
    ),
    (
        {"FAKE_REG_DMABUF": errno.EOPNOTSUPP},
        "ibv_reg_dmabuf_mr: Operation not supported (errno 95), 4096 bytes of CUDA device memory "
        "at 0x100000000200 on fake0; the NIC's driver takes none; Linux 5.12 or newer is needed, "
        "and a NIC such as mlx5's",
    ),
    (
        {"FAKE_REG_DMABUF": errno.ENOMEM},
        "ibv_reg_dmabuf_mr: Cannot allocate memory (errno 12), 4096 bytes of CUDA device memory at "
        "0x100000000200 on fake0; the kernel's log may tell more (dmesg)",
    ),
    (
        {"FAKE_GPU_ALLOCATIONS": one(size=PAGE)},
        "the 4096 bytes at 0x100000000200 span several allocations: the first ends after 3584; "
        "allocate each tensor in one piece",
    ),
    (
        {"FAKE_GPU_ALLOCATIONS": ""},
        "cuMemGetAddressRange: CUDA_ERROR_NOT_FOUND (words of the fake)",
    ),
    ({"FAKE_CURRENT": 1}, "cuCtxPushCurrent: CUDA_ERROR_OF_THE_FAKE (words of the fake)"),
]


@pytest.mark.parametrize(("how", "why"), REFUSED)
def test_without_dma_buf_peermem_is_used_and_the_reason_told(
    machine: Machines, how: dict[str, Any], why: str
) -> None:
    fakes = machine(**{"FAKE_GPU_ALLOCATIONS": one(), "FAKE_REG_GPU_ADDRESS": 0, **how})

    rail = fakes.run("open_rail.py", bases=[GPU + 512], devices=[0])

    assert rail["gpu_memory"] == f"GPU memory through nvidia-peermem; dma-buf: {why}"
    assert f"; {rail['gpu_memory']}; GID: " in rail["describe"]
    assert plain_regions(fakes) == [
        {
            "call": "ibv_reg_mr",
            "address": GPU + 512,
            "bytes": PAGE,
            "access": LOCAL_WRITE | REMOTE_WRITE,
            "iova": GPU + 512,
        }
    ]
    assert rail["buffers"] == 0


@pytest.mark.parametrize(("how", "why"), REFUSED)
def test_without_either_both_reasons_are_told(
    machine: Machines, how: dict[str, Any], why: str
) -> None:
    fakes = machine(**{"FAKE_GPU_ALLOCATIONS": one(), **how})

    rail = fakes.run("open_rail.py", bases=[GPU + 512], devices=[0])

    assert (rail["error"], rail["buffers"]) == ("RegistrationError", 0)
    assert rail["text"].startswith(
        f"the NIC cannot reach GPU memory: dma-buf: {why}; nvidia-peermem: ibv_reg_mr: Bad address "
        "(errno 14), 4096 bytes of CUDA device memory at 0x100000000200 on fake0; "
    )
    assert rail["text"].endswith(peermem_remedy())
    assert fakes.count("ibv_dereg_mr") == 0  # nothing had been registered


def peermem_remedy() -> str:
    loaded = Path("/sys/module/nvidia_peermem").exists()
    return (
        "the module nvidia_peermem is loaded; the kernel's log may tell more (dmesg)"
        if loaded
        else "is nvidia-peermem loaded (modprobe nvidia-peermem)?"
    )


def test_without_a_driver_that_is_the_reason(machine: Machines) -> None:
    fakes = machine(cuda="broken cuda", FAKE_REG_GPU_ADDRESS=0)

    rail = fakes.run("open_rail.py", bases=[GPU], devices=[0])

    assert rail["error"] == "RegistrationError"
    assert rail["text"].count("GPU memory needs the driver's libcuda.so.1") == 2
    assert plain_regions(fakes) == []  # what cannot be asked about is not pinned


def test_one_region_that_is_refused_moves_all_to_the_other_way(machine: Machines) -> None:
    bases = [GPU, HOST, GPU + 16 * PAGE, GPU + 32 * PAGE]
    fakes = machine(
        FAKE_GPU_ALLOCATIONS=one(),
        FAKE_REG_DMABUF=errno.EOPNOTSUPP,
        FAKE_REFUSE_ADDRESS=GPU + 16 * PAGE,
        FAKE_REG_GPU_ADDRESS=0,
    )

    rail = fakes.run("open_rail.py", bases=bases, devices=[0, -1, 0, 0])

    assert rail["gpu_memory"].startswith("GPU memory through nvidia-peermem; dma-buf: ibv_reg_dma")
    # The host's first, and once; the one dma-buf that worked is given back before the others.
    named = ("ibv_reg_mr", "ibv_reg_dmabuf_mr", "ibv_dereg_mr")
    calls = [call for call in fakes.calls(*named) if call.get("bytes") != 8]
    assert [(call["call"], call.get("iova")) for call in calls[:7]] == [
        ("ibv_reg_mr", HOST),
        ("ibv_reg_dmabuf_mr", GPU),
        ("ibv_reg_dmabuf_mr", GPU + 16 * PAGE),
        ("ibv_dereg_mr", None),
        ("ibv_reg_mr", GPU),
        ("ibv_reg_mr", GPU + 16 * PAGE),
        ("ibv_reg_mr", GPU + 32 * PAGE),
    ]
    # In the order of the layout, whatever the order of registering.
    host_key = min(rail["rkeys"])
    assert rail["rkeys"].index(host_key) == 1


def test_keys_follow_the_layout_on_mixed_memory(machine: Machines) -> None:
    fakes = machine(FAKE_GPU_ALLOCATIONS=one())

    rail = fakes.run("open_rail.py", bases=[GPU, HOST, GPU + PAGE], devices=[0, -1, 0])

    # The fake counts its keys up: the host's region was registered first.
    first, host, last = rail["rkeys"]
    assert host < first < last
    assert rail["gpu_memory"] == "GPU memory through dma-buf"


def test_a_refusal_of_host_memory_is_its_own(machine: Machines) -> None:
    fakes = machine(FAKE_GPU_ALLOCATIONS=one(), FAKE_REG_HOST=errno.ENOMEM)

    rail = fakes.run("open_rail.py", bases=[GPU, HOST], devices=[0, -1])

    assert rail["text"].startswith(
        "ibv_reg_mr: Cannot allocate memory (errno 12), 4096 bytes of host"
    )
    assert "GPU" not in rail["text"]
    assert exports(fakes) == []


def test_mapped_memory_of_several_pieces_is_left_to_the_driver(machine: Machines) -> None:
    pieces = ";".join(one(GPU + i * (2 << 20), 2 << 20, kind="mapped") for i in range(2))
    fakes = machine(FAKE_GPU_ALLOCATIONS=pieces)

    rail = fakes.run("open_rail.py", bases=[GPU + PAGE], devices=[0], block_bytes=3 << 20)

    assert rail["gpu_memory"] == "GPU memory through dma-buf"
    assert [call["bytes"] for call in exports(fakes)] == [3 << 20]
    assert fakes.count("cuMemRetainAllocationHandle") == fakes.count("cuMemRelease") == 1


def test_managed_memory_is_never_pinned_by_its_address(machine: Machines) -> None:
    fakes = machine(
        FAKE_GPU_ALLOCATIONS=one(kind="managed"), FAKE_EXPORT=801, FAKE_REG_GPU_ADDRESS=0
    )

    rail = fakes.run("open_rail.py", bases=[GPU], devices=[0])

    assert rail["error"] == "RegistrationError"
    assert "; nvidia-peermem: the memory at 0x100000000000 is managed (cuda" in rail["text"]
    assert plain_regions(fakes) == []


@pytest.mark.parametrize(
    ("options", "call", "access"),
    [
        ({}, "ibv_reg_mr", LOCAL_WRITE | REMOTE_WRITE),
        (
            {"relaxed_ordering": True, "remote_read": True},
            "ibv_reg_mr_iova2",
            LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | RELAXED_ORDERING,
        ),
    ],
)
def test_host_memory_needs_no_cuda_and_is_registered_by_its_address(
    machine: Machines, options: dict[str, bool], call: str, access: int
) -> None:
    fakes = machine(cuda="broken cuda", FAKE_MAX_MR_SIZE=2 * PAGE)

    rail = fakes.run(
        "open_rail.py", bases=[HOST + 24], devices=[-1], blocks=3, block_bytes=PAGE, **options
    )

    sizes = {HOST + 24: 2 * PAGE, HOST + 24 + 2 * PAGE: PAGE}
    assert plain_regions(fakes) == [
        {"call": call, "address": address, "bytes": size, "access": access, "iova": address}
        for address, size in sizes.items()
    ]
    assert rail["gpu_memory"] == ""
    assert "GPU" not in rail["describe"]
    assert "flush" not in rail["describe"]
