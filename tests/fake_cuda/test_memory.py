"""The fake driver's memory behaves as the real one's does, here and in another process."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fake_cuda.neighbour import Neighbour
from support import cuda

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("fake")
INVALID_VALUE, INVALID_CONTEXT, MAP_FAILED = 1, 201, 205


def status_of(name: str, *arguments: object) -> int:
    return int(getattr(cuda.driver(), name)(*arguments))


def attribute(which: int, address: int) -> int:
    return int(cuda.ask("cuPointerGetAttribute", ctypes.c_uint64, which, address))


def test_every_function_that_the_core_calls_is_there():
    source = (ROOT / "src/cuda/driver.cc").read_text()
    called = re.findall(r'find(?:\.optional)?\("(\w+)"', source)

    assert len(called) > 50
    assert [name for name in called if not hasattr(cuda.driver(), name)] == []


def test_the_run_time_compiler_has_what_the_core_calls(libraries: Path):
    library = ctypes.CDLL(str(libraries / "libnvrtc.so.13"))
    source = (ROOT / "src/cuda/nvrtc.cc").read_text()
    called = re.findall(r'find\("(\w+)"', source)

    assert len(called) > 5
    assert [name for name in called if not hasattr(library, name)] == []


@pytest.mark.parametrize("size", [1, 4096, 5_000_001])
def test_bytes_that_were_written_are_read(size: int):
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    place = cuda.Memory(1, size).place()

    place.write(content)

    assert np.array_equal(place.read(), content)


def test_an_address_tells_its_device_and_its_allocation():
    memory = cuda.Memory(1, 1000)
    inside = memory.address + 999

    assert attribute(2, inside) == 2  # device memory
    assert attribute(9, inside) == 1  # of GPU 1
    assert attribute(10, inside) == 1  # that can be opened elsewhere
    first, size = cuda.Pointer(), cuda.Size()
    with cuda.on(0):
        cuda.call("cuMemGetAddressRange_v2", ctypes.byref(first), ctypes.byref(size), inside)
    assert (first.value, size.value) == (memory.address, 1000)
    out = ctypes.c_uint64()
    assert status_of("cuPointerGetAttribute", ctypes.byref(out), 2, inside + 1) == INVALID_VALUE


def test_host_memory_is_known_where_it_is_page_locked_only():
    pinned = cuda.Pinned(0, 64)
    plain = np.zeros(64, np.uint8)
    out = ctypes.c_uint64()

    assert attribute(2, pinned.address) == 1
    asked = status_of("cuPointerGetAttribute", ctypes.byref(out), 2, plain.ctypes.data)
    assert asked == INVALID_VALUE


def test_what_was_freed_cannot_be_freed_or_copied_again():
    memory = cuda.Memory(0, 64)
    address = memory.address
    memory.free()

    with cuda.on(0):
        assert status_of("cuMemFree_v2", address) == INVALID_VALUE
        stolen = np.zeros(64, np.uint8)
        assert status_of("cuMemcpyDtoH_v2", stolen.ctypes.data, address, 64) == INVALID_VALUE


def test_nothing_is_allocated_without_a_context():
    out = cuda.Pointer()

    assert status_of("cuMemAlloc_v2", ctypes.byref(out), 64) == INVALID_CONTEXT


def test_contexts_nest_on_each_thread():
    with cuda.on(0):
        with cuda.on(1):
            assert cuda.ask("cuCtxGetCurrent", cuda.Handle) == cuda.context(1)
        assert cuda.ask("cuCtxGetCurrent", cuda.Handle) == cuda.context(0)
    assert cuda.ask("cuCtxGetCurrent", cuda.Handle) is None
    assert status_of("cuCtxPopCurrent_v2", None) == INVALID_CONTEXT


def test_peer_access_is_given_once():
    with cuda.on(0):
        first = status_of("cuCtxEnablePeerAccess", cuda.context(1), 0)
        assert first in (0, 704)
        assert status_of("cuCtxEnablePeerAccess", cuda.context(1), 0) == 704
        assert status_of("cuCtxEnablePeerAccess", cuda.context(0), 0) == 101


def test_a_neighbour_reads_and_writes_what_is_opened(neighbour: Neighbour):
    number, handle = neighbour.make(1, 5000, 7)

    opened = cuda.Opened(0, handle)
    assert (opened.place(0, 5000).read() == 7).all()
    opened.place(100, 3).write(np.array([1, 2, 3], np.uint8))

    assert neighbour.read(number, 99, 5) == "0701020307"
    assert attribute(9, opened.address) == 1
    opened.close()


def test_a_handle_that_is_opened_again_has_the_same_address(neighbour: Neighbour):
    memory = cuda.Memory(0, 64)

    one, other = neighbour.open_twice(1, memory.handle())

    assert one == other


def test_it_stays_open_until_it_was_closed_as_often(neighbour: Neighbour):
    _, handle = neighbour.make(0, 64, 9)
    one, other = cuda.Opened(1, handle), cuda.Opened(1, handle)
    address = one.address
    one.close()

    assert (other.place(0, 64).read() == 9).all()
    other.close()
    with cuda.on(1):
        assert status_of("cuIpcCloseMemHandle", address) == INVALID_VALUE


def test_an_own_handle_cannot_be_opened():
    with pytest.raises(cuda.CudaError) as failure:
        cuda.Opened(1, cuda.Memory(0, 64).handle())

    assert failure.value.status == INVALID_CONTEXT


@pytest.mark.parametrize("how", ["free", "kill"])
def test_what_is_open_outlives_its_owner_but_opens_no_more(neighbour: Neighbour, how: str):
    number, handle = neighbour.make(1, 4096, 5)
    _, other = neighbour.make(1, 4096, 6)
    opened = cuda.Opened(0, handle)

    if how == "free":
        neighbour.free(number)
    else:
        neighbour.kill()

    assert (opened.place(0, 4096).read() == 5).all()
    opened.close()
    for gone in (handle, other) if how == "kill" else (handle,):
        with pytest.raises(cuda.CudaError) as failure:
            cuda.Opened(0, gone)
        assert failure.value.status == MAP_FAILED


def test_only_whole_allocations_have_handles():
    memory = cuda.Memory(0, 4096)
    raw = cuda.IpcHandle()

    assert status_of("cuIpcGetMemHandle", ctypes.byref(raw), memory.address + 16) == INVALID_VALUE


def test_virtual_memory_of_several_chunks_is_one_run():
    memory = cuda.Virtual(1, 3 * cuda.GRANULARITY)
    across = memory.place(cuda.GRANULARITY - 10, 20)
    content = np.arange(20, dtype=np.uint8)

    across.write(content)

    assert np.array_equal(across.read(), content)
    assert attribute(10, memory.address) == 0  # no handle of the old kind
    assert attribute(14, memory.address) == 1  # but descriptors
    assert attribute(18, memory.address + cuda.GRANULARITY) == cuda.GRANULARITY
    assert attribute(19, memory.address + cuda.GRANULARITY + 5) == memory.address + cuda.GRANULARITY
    raw = cuda.IpcHandle()
    assert status_of("cuIpcGetMemHandle", ctypes.byref(raw), memory.address) == INVALID_VALUE


def test_a_chunk_is_imported_by_a_neighbour(neighbour: Neighbour):
    memory = cuda.Virtual(0, 2 * cuda.GRANULARITY)
    memory.place().write(np.full(memory.size, 3, np.uint8))
    descriptor = memory.export(1)
    try:
        number = neighbour.import_chunk(1, os.getpid(), descriptor, cuda.GRANULARITY)
    finally:
        os.close(descriptor)

    neighbour.write(number, 5, "aabb")

    wanted = np.array([3, 0xAA, 0xBB, 3], np.uint8)
    assert np.array_equal(memory.place(cuda.GRANULARITY + 4, 4).read(), wanted)
    memory.free()
    assert neighbour.read(number, 4, 3) == "03aabb"  # the neighbour holds it


def test_private_virtual_memory_is_not_exported():
    memory = cuda.Virtual(0, cuda.GRANULARITY, is_exportable=False)

    with pytest.raises(cuda.CudaError):
        memory.export(0)
    assert attribute(14, memory.address) == 0


@pytest.mark.parametrize(
    "touch",
    [
        "ctypes.memset(memory.address, 1, 1) if not memory.free() else 0",  # after its end
        "ctypes.memset(memory.address + 2 * memory.size, 1, 1)",  # beyond its end
        "cuda.SlowFill(cuda.Stream(1), memory.place(), 1)",  # GPU 1 was given no access
    ],
    ids=["freed", "beyond", "no-access"],
)
def test_who_touches_what_is_not_there_dies(libraries: Path, touch: str):
    program = f"""
import ctypes
from support import cuda
memory = cuda.Memory(0, 4096)
memory.place().read()
print("alive", flush=True)
{touch}
print("still alive")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": str(ROOT / "tests"),
        },
        capture_output=True,
        text=True,
    )

    assert ended.stdout == "alive\n"
    assert ended.returncode < 0


def test_a_forked_child_has_no_driver():
    child = os.fork()
    if child == 0:
        os._exit(status_of("cuCtxSynchronize"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3  # NOT_INITIALIZED


def test_a_failure_comes_at_the_call_that_was_asked_for():
    fail = cuda.driver().rdma_kv_fake_fail
    fail(b"cuMemAlloc_v2", 2, 2)

    first = cuda.Memory(0, 64)
    with pytest.raises(cuda.CudaError, match="OUT_OF_MEMORY"):
        cuda.Memory(0, 64)
    cuda.Memory(0, 64)
    fail(b"cuMemAlloc_v2", 0, 2)
    for _ in range(2):
        with pytest.raises(cuda.CudaError):
            cuda.Memory(0, 64)
    fail(b"cuMemAlloc_v2", 0, 0)
    assert cuda.Memory(0, 64).address != first.address
