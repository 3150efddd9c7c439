"""When what a NIC wrote to a GPU is flushed: against FAKES of libibverbs and libcuda."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.fake_machine import Machine

GPU = 0x100000000000
SETTING = "KVCACHE_GDRCOPY_FLUSH_ENABLE"
REMOTE_READ = 4

Machines = Callable[..., Any]

# (what the GPUs report, devices of the regions, setting, reads back, is enough, the reason)
NONE, OWNER, ALL, SILENT = "0,1,1,1", "100,1,1,1", "200,1,1,1", "-,-,1,1"
HAS_NO_FLUSH = "0,0,1,1"


def on(*named: str) -> str:
    return ", ".join(f"CUDA device {each.replace(':', ' (Fake GPU) (')})" for each in named)


ORDERED = "none: writes of a NIC are in order on "
UNORDERED = "prefill reads back: writes of a NIC are not in order on "
FORCED = f"prefill reads back: {SETTING}=1"
OFF = f"none: {SETTING}=0"
DOUBTFUL = f"{OFF}, although writes of a NIC are not in order on "
OLD = ": a kernel may read old bytes"
CASES = [
    (NONE, [0], None, True, True, UNORDERED + on("0:reports 0")),
    (HAS_NO_FLUSH, [0], None, True, True, UNORDERED + on("0:reports 0")),
    (OWNER, [0], None, False, True, ORDERED + on("0:reports 100")),
    (ALL, [0], None, False, True, ORDERED + on("0:reports 200")),
    ("99,1,1,1", [0], None, True, True, UNORDERED + on("0:reports 99")),
    (SILENT, [0], None, True, True, UNORDERED + on("0:does not tell")),
    (NONE, [0], True, True, True, FORCED),
    (OWNER, [0], True, True, True, FORCED),
    (ALL, [0], True, True, True, FORCED),
    (NONE, [0], False, False, False, DOUBTFUL + on("0:reports 0") + OLD),
    (SILENT, [0], False, False, False, DOUBTFUL + on("0:does not tell") + OLD),
    (OWNER, [0], False, False, True, OFF),
    (ALL, [0], False, False, True, OFF),
    # Host memory.
    (NONE, [], None, False, True, "none: the blocks are in host memory"),
    (NONE, [], False, False, True, f"none: the blocks are in host memory, {SETTING}=0"),
    (ALL, [], True, True, True, FORCED),
    # Several: those that need it decide, and only those that hold regions are asked.
    (f"{ALL};{NONE}", [0], None, False, True, ORDERED + on("0:reports 200")),
    (f"{ALL};{NONE}", [1, 0, 1], None, True, True, UNORDERED + on("1:reports 0")),
    (f"{NONE};{NONE}", [1, 0], None, True, True, UNORDERED + on("0:reports 0", "1:reports 0")),
    (f"{ALL};{OWNER}", [1, 0], None, False, True, ORDERED + on("0:reports 200", "1:reports 100")),
    (f"{ALL};{NONE}", [0, 1], False, False, False, DOUBTFUL + on("1:reports 0") + OLD),
    (f"{ALL};{NONE}", [0, 1], True, True, True, FORCED),
]


@pytest.fixture(scope="module")
def plans(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The plan for each case, in order; made by one process."""
    fakes = Machine(tmp_path_factory.mktemp("plans"), [built["verbs"], built["cuda"]])
    return list(fakes.run("plan_flushes.py", cases=[case[:3] for case in CASES]))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case[:3]) for case in CASES])
def test_gpus_and_the_setting_decide(plans: list[Any], number: int) -> None:
    assert tuple(plans[number]) == CASES[number][3:]


def test_without_a_driver_gpus_are_flushed(machine: Machines) -> None:
    fakes = machine(cuda="broken cuda")

    [[by_reading, is_enough, reason]] = fakes.run("plan_flushes.py", cases=[["", [0], None]])

    assert (by_reading, is_enough) == (True, True)
    assert reason.startswith(f"{UNORDERED}CUDA device 0 (GPU memory needs the driver's libcuda")


def test_the_receivers_own_flush_is_for_the_owner_in_its_context(machine: Machines) -> None:
    fakes = machine(FAKE_GPUS=f"{NONE};{NONE}")

    assert fakes.run("flush_writes.py", device=1) == "done"

    assert fakes.calls("cuFlushGPUDirectRDMAWrites") == [{"target": 0, "scope": 100, "context": 2}]
    assert fakes.calls("cuDevicePrimaryCtxRetain") == fakes.calls("cuDevicePrimaryCtxRelease")


def test_a_driver_without_the_receivers_flush_is_named(machine: Machines) -> None:
    said = machine(cuda="old cuda").run("flush_writes.py", device=0)

    assert said == (
        "TransportUnavailable: the NVIDIA driver has no cuFlushGPUDirectRDMAWrites; one of CUDA "
        "11.3 or newer is needed"
    )


def communicator(machine: Machines, gpus: str, role: str = "decode", **environment: str) -> Any:
    fakes = machine(FAKE_GPUS=gpus, FAKE_GPU_ALLOCATIONS=f"{GPU:#x}:{1 << 20}:0:plain")
    return fakes, fakes.run(
        "make_communicator.py", role=role, keys=[GPU, GPU + 4096], environment=environment
    )


def test_a_gpu_that_does_not_order_writes_is_offered_with_a_flush_and_may_be_read(
    machine: Machines,
) -> None:
    fakes, decode = communicator(machine, NONE)

    assert decode["flush"] is True
    assert all(call["access"] & REMOTE_READ for call in fakes.calls("ibv_reg_dmabuf_mr"))
    assert fakes.count("ibv_reg_dmabuf_mr") == 2
    why = f"; GPU memory through dma-buf; flush: {UNORDERED}{on('0:reports 0')}; GID: "
    assert why in decode["rails"][0]
    assert f"INFO rdma: {decode['rails'][0]}" in decode["log"]


def test_a_gpu_that_orders_writes_is_offered_without_and_may_not_be_read(machine: Machines) -> None:
    fakes, decode = communicator(machine, OWNER)

    assert decode["flush"] is False
    assert fakes.count("ibv_reg_dmabuf_mr") == 2
    assert not any(call["access"] & REMOTE_READ for call in fakes.calls("ibv_reg_dmabuf_mr"))
    assert f"; flush: {ORDERED}{on('0:reports 100')}; GID: " in decode["rails"][0]


def test_a_setting_that_forbids_a_flush_which_is_needed_is_warned_about(machine: Machines) -> None:
    _, decode = communicator(machine, NONE, **{SETTING: "0"})

    assert decode["flush"] is False
    assert f"WARNING rdma: flush: {DOUBTFUL}{on('0:reports 0')}{OLD}" in decode["log"]


def test_prefill_is_read_and_written_by_nobody(machine: Machines) -> None:
    fakes, prefill = communicator(machine, NONE, "prefill")

    assert [call["access"] for call in fakes.calls("ibv_reg_dmabuf_mr")] == [1, 1]
    assert "; GPU memory through dma-buf; GID: " in prefill["rails"][0]


@pytest.mark.parametrize("transport", ["auto", "rdma"])
def test_memory_that_no_way_reaches_is_told_in_one_place(machine: Machines, transport: str) -> None:
    fakes = machine("old verbs", FAKE_GPU_ALLOCATIONS=f"{GPU:#x}:{1 << 20}:0:plain")

    decode = fakes.run(
        "make_communicator.py",
        role="decode",
        keys=[GPU],
        environment={"KVCACHE_TRANSPORT": transport},
    )

    why = "the NIC cannot reach GPU memory: dma-buf: libibverbs has no ibv_reg_dmabuf_mr; "
    if transport == "rdma":
        assert decode["error"].startswith(f"RegistrationError: KVCACHE_TRANSPORT=rdma: {why}")
    else:
        assert decode["no_rdma"].startswith(why)
        assert decode["rails"] == []
        assert f"WARNING rdma is not used: {decode['no_rdma']}" in decode["log"]


def test_the_doctor_tells_of_each_gpu_what_it_can_and_what_came_of_it(machine: Machines) -> None:
    fakes = machine(
        FAKE_GPUS="0,1,1,1;200,0,0,-", FAKE_GPU_ALLOCATIONS=f"{GPU:#x}:{4 << 20}:0:plain"
    )

    facts = fakes.run("ask_doctor.py", environment={})

    first, second = facts["GPUs"].splitlines()
    assert first == (
        "CUDA device 0 (Fake GPU); dma-buf yes; peer memory yes; does not order writes of a NIC; "
        "has its own flush"
    )
    assert second == (
        "CUDA device 1 (Fake GPU); dma-buf no; peer memory unknown to this driver; orders writes "
        "of a NIC for all GPUs; no flush of its own"
    )
    assert "; GPU memory through dma-buf; flush: prefill reads" in facts["GPU 0 over rdma"]
    assert facts["GPU 1 over rdma"].startswith("no: the NIC cannot reach GPU memory: dma-buf: CUDA")
    # The first GPU's two MiB and the rail's own bytes are given back, and all memory is freed.
    assert fakes.count("ibv_dereg_mr") == 2
    assert fakes.count("cuMemFree") == 2
    assert fakes.count("cuDevicePrimaryCtxRetain") == fakes.count("cuDevicePrimaryCtxRelease")


def test_the_doctor_says_why_there_are_no_gpus(machine: Machines) -> None:
    facts = machine(cuda="broken cuda").run("ask_doctor.py", environment={})

    assert list(facts) == ["GPUs"]
    assert facts["GPUs"].startswith("none: GPU memory needs the driver's libcuda.so.1: ")
