"""GPU memory for tests: the CUDA driver through ctypes, the real one or tests/fake_cuda's."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from support.patience import scaled

Pointer = ctypes.c_uint64
Handle = ctypes.c_void_p
Size = ctypes.c_size_t
Number = ctypes.c_int
Out = ctypes.c_void_p  # where byref() goes

# Streams share few queues of the hardware unless the driver is told, and what shares one waits for
# the kernel in front of it. Read when the driver starts.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

GRANULARITY = 2 << 20  # of virtual memory, asked of the driver before it is relied on
_POSIX_FD = 1
_NON_BLOCKING = 1


class IpcHandle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 64)]


class _Location(ctypes.Structure):
    _fields_ = [("type", Number), ("id", Number)]


class _Access(ctypes.Structure):
    _fields_ = [("location", _Location), ("flags", Number)]


class _Properties(ctypes.Structure):
    """CUmemAllocationProp."""

    _fields_ = [
        ("type", Number),
        ("handle_types", Number),
        ("location", _Location),
        ("metadata", Handle),
        ("flags", ctypes.c_ubyte * 8),
    ]


# Without these ctypes would cut a pointer to 32 bits.
_ARGUMENTS: dict[str, Sequence[Any]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorName": (Number, Out),
    "cuDeviceGetCount": (Out,),
    "cuDeviceGet": (Out, Number),
    "cuDeviceGetAttribute": (Out, Number, Number),
    "cuDeviceCanAccessPeer": (Out, Number, Number),
    "cuDevicePrimaryCtxRetain": (Out, Number),
    "cuDevicePrimaryCtxRelease_v2": (Number,),
    "cuCtxPushCurrent_v2": (Handle,),
    "cuCtxPopCurrent_v2": (Out,),
    "cuCtxGetCurrent": (Out,),
    "cuCtxSetCurrent": (Handle,),
    "cuCtxSynchronize": (),
    "cuCtxEnablePeerAccess": (Handle, ctypes.c_uint),
    "cuMemAlloc_v2": (Out, Size),
    "cuMemFree_v2": (Pointer,),
    "cuMemGetInfo_v2": (Out, Out),
    "cuMemGetAddressRange_v2": (Out, Out, Pointer),
    "cuMemHostAlloc": (Out, Size, ctypes.c_uint),
    "cuMemFreeHost": (Handle,),
    "cuMemcpyHtoD_v2": (Pointer, Handle, Size),
    "cuMemcpyDtoH_v2": (Handle, Pointer, Size),
    "cuMemcpyHtoDAsync_v2": (Pointer, Handle, Size, Handle),
    "cuMemcpyDtoHAsync_v2": (Handle, Pointer, Size, Handle),
    "cuMemcpyDtoDAsync_v2": (Pointer, Pointer, Size, Handle),
    "cuMemsetD8Async": (Pointer, ctypes.c_ubyte, Size, Handle),
    "cuPointerGetAttribute": (Out, Number, Pointer),
    "cuStreamCreateWithPriority": (Out, ctypes.c_uint, Number),
    "cuStreamDestroy_v2": (Handle,),
    "cuStreamSynchronize": (Handle,),
    "cuStreamQuery": (Handle,),
    "cuStreamWaitEvent": (Handle, Handle, ctypes.c_uint),
    "cuLaunchHostFunc": (Handle, Handle, Handle),
    "cuEventCreate": (Out, ctypes.c_uint),
    "cuEventDestroy_v2": (Handle,),
    "cuEventRecord": (Handle, Handle),
    "cuEventQuery": (Handle,),
    "cuEventSynchronize": (Handle,),
    "cuModuleLoadData": (Out, Handle),
    "cuModuleUnload": (Handle,),
    "cuModuleGetFunction": (Out, Handle, ctypes.c_char_p),
    "cuLaunchKernel": (Handle, *[ctypes.c_uint] * 7, Handle, Out, Out),
    "cuIpcGetMemHandle": (Out, Pointer),
    "cuIpcOpenMemHandle_v2": (Out, IpcHandle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (Pointer,),
    "cuMemCreate": (Out, Size, Out, ctypes.c_ulonglong),
    "cuMemRelease": (ctypes.c_ulonglong,),
    "cuMemGetAllocationGranularity": (Out, Out, Number),
    "cuMemExportToShareableHandle": (Out, ctypes.c_ulonglong, Number, ctypes.c_ulonglong),
    "cuMemImportFromShareableHandle": (Out, Handle, Number),
    "cuMemRetainAllocationHandle": (Out, Handle),
    "cuMemAddressReserve": (Out, Size, Size, Pointer, ctypes.c_ulonglong),
    "cuMemAddressFree": (Pointer, Size),
    "cuMemMap": (Pointer, Size, Size, ctypes.c_ulonglong, ctypes.c_ulonglong),
    "cuMemUnmap": (Pointer, Size),
    "cuMemSetAccess": (Pointer, Size, Out, Size),
}


class CudaError(RuntimeError):
    """A call of the driver that failed; `status` is its number."""

    def __init__(self, name: str, status: int) -> None:
        words = ctypes.c_char_p()
        driver().cuGetErrorName(status, ctypes.byref(words))
        super().__init__(f"{name}: {(words.value or b'unknown error').decode()} ({status})")
        self.status = status


_path = "libcuda.so.1"


@functools.cache
def driver() -> ctypes.CDLL:
    """Raises OSError where there is none."""
    library = ctypes.CDLL(_path)
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = Number
    return library


def call(name: str, *arguments: Any) -> None:
    status = getattr(driver(), name)(*arguments)
    if status != 0:
        raise CudaError(name, status)


def ask(name: str, kind: Callable[[], Any], *arguments: Any) -> Any:
    """A call whose first argument is where the answer goes."""
    answer = kind()
    call(name, ctypes.byref(answer), *arguments)
    return getattr(answer, "value", answer)


@functools.cache
def count() -> int:
    """Of GPUs; 0 where there is no driver or none of them is visible."""
    try:
        if driver().cuInit(0) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return int(ask("cuDeviceGetCount", Number))


def is_fake() -> bool:
    """Whether the driver is that of tests/fake_cuda."""
    try:
        return hasattr(driver(), "rdma_kv_fake_fail")
    except (OSError, AttributeError):
        return False


@functools.cache
def context(gpu: int) -> int:
    """The primary one, held from now on."""
    assert 0 <= gpu < count(), f"there is no GPU {gpu}: {count()} are visible"
    return int(ask("cuDevicePrimaryCtxRetain", Handle, ask("cuDeviceGet", Number, gpu)))


@contextlib.contextmanager
def on(gpu: int) -> Iterator[None]:
    """Its context is current inside."""
    call("cuCtxPushCurrent_v2", context(gpu))
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", None)


@contextlib.contextmanager
def instead(path: str) -> Iterator[None]:
    """Another driver inside, for this module alone; what is made inside must not outlive it."""
    global _path
    before, _path = _path, path
    _forget()
    try:
        yield
    finally:
        gc.collect()
        _path = before
        _forget()


def _forget() -> None:
    for cached in (driver, count, context, _slow_fill):
        cached.cache_clear()


# ---- memory ----


class Place:
    """A run of device memory that something else owns."""

    def __init__(self, owner: object, gpu: int, address: int, size: int) -> None:
        self._owner = owner
        self.gpu = gpu
        self.address = address
        self.size = size

    def read(self, offset: int = 0, size: int | None = None) -> np.ndarray:
        """A copy of its bytes as they are now."""
        size = self.size - offset if size is None else size
        assert 0 <= offset <= offset + size <= self.size
        bytes_ = np.empty(size, np.uint8)
        with on(self.gpu):
            call("cuMemcpyDtoH_v2", bytes_.ctypes.data, self.address + offset, size)
        return bytes_

    def handle(self) -> str:
        """Of an allocation that this place is all of."""
        assert isinstance(self._owner, Memory)
        assert (self._owner.address, self._owner.size) == (self.address, self.size)
        return self._owner.handle()

    def write(self, bytes_: np.ndarray, offset: int = 0) -> None:
        """Returns once they are there."""
        bytes_ = np.ascontiguousarray(bytes_)
        assert 0 <= offset <= offset + bytes_.size <= self.size
        with on(self.gpu):
            call("cuMemcpyHtoD_v2", self.address + offset, bytes_.ctypes.data, bytes_.size)
            call("cuStreamSynchronize", None)  # of a small one only the taking is awaited


class Memory:
    """An allocation, freed with the last reference to it."""

    def __init__(self, gpu: int, size: int) -> None:
        self.gpu = gpu
        self.size = size
        self.address = 0
        with on(gpu):
            self.address = ask("cuMemAlloc_v2", Pointer, size)

    def place(self, offset: int = 0, size: int | None = None) -> Place:
        size = self.size - offset if size is None else size
        return Place(self, self.gpu, self.address + offset, size)

    def handle(self) -> str:
        """For `Opened`, in another process."""
        with on(self.gpu):
            return bytes(ask("cuIpcGetMemHandle", IpcHandle, self.address).bytes).hex()

    def free(self) -> None:
        if self.address:
            with on(self.gpu):
                call("cuMemFree_v2", self.address)
        self.address = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end, anything may be gone
            self.free()


class Virtual(Memory):
    """Addresses behind which lie several chunks of memory, each an allocation of its own."""

    def __init__(
        self, gpu: int, size: int, *, chunk: int = GRANULARITY, is_exportable: bool = True
    ) -> None:
        context(gpu)  # the first call of a process
        properties = _Properties(1, _POSIX_FD if is_exportable else 0, _Location(1, gpu))
        granularity = ask("cuMemGetAllocationGranularity", Size, ctypes.byref(properties), 0)
        assert chunk % granularity == 0, f"a chunk must have a multiple of {granularity} bytes"
        self.gpu = gpu
        self.size = -(-size // chunk) * chunk
        self.address = 0
        self._chunk = chunk
        self._handles: list[int] = []
        with on(gpu):
            self.address = ask("cuMemAddressReserve", Pointer, self.size, 0, 0, 0)
            for start in range(0, self.size, chunk):
                made = ask("cuMemCreate", ctypes.c_ulonglong, chunk, ctypes.byref(properties), 0)
                self._handles.append(made)
                call("cuMemMap", self.address + start, chunk, 0, made, 0)
            access = _Access(_Location(1, gpu), 3)
            call("cuMemSetAccess", self.address, self.size, ctypes.byref(access), 1)

    def handle(self) -> str:
        raise AssertionError("virtual memory has no handle for all of it")

    def export(self, number: int) -> int:
        """A descriptor of one chunk, which is then the caller's."""
        handle = self._handles[number]
        return int(ask("cuMemExportToShareableHandle", Number, handle, _POSIX_FD, 0))

    def free(self) -> None:
        if not self.address:
            return
        with on(self.gpu):
            call("cuCtxSynchronize")
            for start in range(0, self.size, self._chunk):
                call("cuMemUnmap", self.address + start, self._chunk)
            for handle in self._handles:
                call("cuMemRelease", handle)
            call("cuMemAddressFree", self.address, self.size)
        self.address = 0


class Mapped:
    """One chunk of virtual memory, made or imported elsewhere, mapped at addresses of its own."""

    def __init__(self, gpu: int, handle: int, size: int) -> None:
        self.gpu = gpu
        self.size = size
        access = _Access(_Location(1, gpu), 3)
        with on(gpu):
            self.address = ask("cuMemAddressReserve", Pointer, size, 0, 0, 0)
            call("cuMemMap", self.address, size, 0, handle, 0)
            call("cuMemRelease", handle)  # mapped, it stays
            call("cuMemSetAccess", self.address, size, ctypes.byref(access), 1)

    def place(self, offset: int, size: int) -> Place:
        return Place(self, self.gpu, self.address + offset, size)

    def close(self) -> None:
        with on(self.gpu):
            call("cuCtxSynchronize")
            call("cuMemUnmap", self.address, self.size)
            call("cuMemAddressFree", self.address, self.size)


class Opened:
    """Another process's allocation, mapped here."""

    def __init__(self, gpu: int, handle: str) -> None:
        raw = IpcHandle.from_buffer_copy(bytes.fromhex(handle))
        self.gpu = gpu
        self.address = 0
        with on(gpu):
            self.address = ask("cuIpcOpenMemHandle_v2", Pointer, raw, 1)

    def place(self, offset: int, size: int) -> Place:
        return Place(self, self.gpu, self.address + offset, size)

    def close(self) -> None:
        if self.address:
            with on(self.gpu):
                call("cuIpcCloseMemHandle", self.address)
        self.address = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Pinned:
    """Page-locked host memory that every GPU reaches at the same address."""

    def __init__(self, gpu: int, size: int) -> None:
        self._gpu = gpu
        self.address = 0
        with on(gpu):
            self.address = ask("cuMemHostAlloc", Handle, size, 3)
        self.bytes = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(self.address))
        self.bytes[:] = 0

    def free(self) -> None:
        if self.address:
            with on(self._gpu):
                call("cuMemFreeHost", self.address)
        self.address = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.free()


# ---- work ----


class Stream:
    """Independent of the default stream. `__cuda_stream__` says what it is, as torch's does."""

    def __init__(self, gpu: int) -> None:
        self.gpu = gpu
        with on(gpu):
            self.raw = int(ask("cuStreamCreateWithPriority", Handle, _NON_BLOCKING, 0))

    @property
    def cuda_stream(self) -> int:
        return self.raw

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.raw

    def is_done(self) -> bool:
        return _is_done("cuStreamQuery", self.raw)

    def synchronize(self) -> None:
        call("cuStreamSynchronize", self.raw)

    def wait(self, event: Event) -> None:
        call("cuStreamWaitEvent", self.raw, event.raw, 0)

    def fill(self, place: Place, value: int) -> None:
        with on(self.gpu):
            call("cuMemsetD8Async", place.address, value, place.size, self.raw)

    def destroy(self) -> None:
        if self.raw:
            with on(self.gpu):
                call("cuStreamDestroy_v2", self.raw)
        self.raw = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.destroy()


class Event:
    def __init__(self, gpu: int) -> None:
        self.gpu = gpu
        with on(gpu):
            self.raw = int(ask("cuEventCreate", Handle, 2))  # without timing

    @property
    def cuda_event(self) -> int:
        return self.raw

    def record(self, stream: Stream) -> Event:
        with on(self.gpu):
            call("cuEventRecord", self.raw, stream.raw)
        return self

    def is_done(self) -> bool:
        return _is_done("cuEventQuery", self.raw)

    def synchronize(self) -> None:
        call("cuEventSynchronize", self.raw)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            call("cuEventDestroy_v2", self.raw)


def _is_done(query: str, raw: int) -> bool:
    status = getattr(driver(), query)(raw)
    if status not in (0, 600):
        raise CudaError(query, status)
    return bool(status == 0)


class SlowFill:
    """A kernel that waits for its gate, then fills; opened in any case after `within_s`.

    It is still running, and has written nothing, for as long as the test likes.
    """

    def __init__(self, stream: Stream, place: Place, value: int, within_s: float = 20) -> None:
        self._place = place  # kept until it is filled
        self._gate = Pinned(stream.gpu, 4)
        arguments = [
            ctypes.c_uint64(place.address),
            ctypes.c_uint64(place.size),
            ctypes.c_uint32(value),
            ctypes.c_uint64(round(scaled(within_s) * 1e6)),
            ctypes.c_uint64(self._gate.address),
        ]
        pointers = (Handle * len(arguments))(*[ctypes.addressof(one) for one in arguments])
        with on(stream.gpu):
            call(
                "cuLaunchKernel",
                _slow_fill(stream.gpu),
                *(1, 1, 1),
                *(512, 1, 1),
                0,
                stream.raw,
                pointers,
                None,
            )

    def let_go(self) -> None:
        self._gate.bytes[:] = 1


@functools.cache
def _slow_fill(gpu: int) -> int:
    with on(gpu):
        module = ask("cuModuleLoadData", Handle, _SLOW_FILL)
        return int(ask("cuModuleGetFunction", Handle, module, b"test_fill_slowly"))


# What nvcc makes of this, for compute capability 8.0, with the version of PTX lowered:
#
#     extern "C" __global__ void test_fill_slowly(unsigned char* to, unsigned long long bytes,
#         unsigned value, unsigned long long microseconds, const volatile unsigned* gate) {
#       unsigned long long start, now;
#       asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
#       do {
#         asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
#       } while (now - start < microseconds * 1000 && (gate == nullptr || *gate == 0));
#       for (unsigned long long at = threadIdx.x; at < bytes; at += blockDim.x)
#         to[at] = (unsigned char)value;
#     }
_SLOW_FILL = b"""
.version 7.0
.target sm_80
.address_size 64
    // .globl    test_fill_slowly
.visible .entry test_fill_slowly(
    .param .u64 test_fill_slowly_param_0,
    .param .u64 test_fill_slowly_param_1,
    .param .u32 test_fill_slowly_param_2,
    .param .u64 test_fill_slowly_param_3,
    .param .u64 test_fill_slowly_param_4
)
{
    .reg .pred     %p<7>;
    .reg .b16     %rs<2>;
    .reg .b32     %r<5>;
    .reg .b64     %rd<20>;
    ld.param.u64     %rd9, [test_fill_slowly_param_0];
    ld.param.u64     %rd10, [test_fill_slowly_param_1];
    ld.param.u32     %r1, [test_fill_slowly_param_2];
    ld.param.u64     %rd14, [test_fill_slowly_param_3];
    ld.param.u64     %rd11, [test_fill_slowly_param_4];
    mov.u64 %rd12, %globaltimer;
    mov.u64 %rd13, %globaltimer;
    sub.s64     %rd15, %rd13, %rd12;
    mul.lo.s64     %rd2, %rd14, 1000;
    setp.ge.u64     %p1, %rd15, %rd2;
    @%p1 bra     $L__BB0_5;
    cvta.to.global.u64     %rd3, %rd11;
$L__BB0_2:
    setp.eq.s64     %p2, %rd11, 0;
    @%p2 bra     $L__BB0_4;
    ld.volatile.global.u32     %r2, [%rd3];
    setp.ne.s32     %p3, %r2, 0;
    @%p3 bra     $L__BB0_5;
$L__BB0_4:
    mov.u64 %rd16, %globaltimer;
    sub.s64     %rd17, %rd16, %rd12;
    setp.lt.u64     %p4, %rd17, %rd2;
    @%p4 bra     $L__BB0_2;
$L__BB0_5:
    mov.u32     %r3, %tid.x;
    cvt.u64.u32     %rd19, %r3;
    setp.ge.u64     %p5, %rd19, %rd10;
    @%p5 bra     $L__BB0_8;
    cvt.u16.u32     %rs1, %r1;
    mov.u32     %r4, %ntid.x;
    cvt.u64.u32     %rd5, %r4;
    cvta.to.global.u64     %rd6, %rd9;
$L__BB0_7:
    add.s64     %rd18, %rd6, %rd19;
    st.global.u8     [%rd18], %rs1;
    add.s64     %rd19, %rd19, %rd5;
    setp.lt.u64     %p6, %rd19, %rd10;
    @%p6 bra     $L__BB0_7;
$L__BB0_8:
    ret;
}
"""
