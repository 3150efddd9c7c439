"""The copy kernel's job (src/cuda/copy_job.h) for ctypes, and what it must do, in NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from support import cuda

LANES = 32
ACCESSES_PER_PIECE = LANES * 4
SPARE = 64  # bytes around everything, which must not change


class _Walk(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("src_stride", "dst_stride")),
        *((name, ctypes.c_uint64) for name in ("src_packed", "dst_packed", "bytes")),
        *((name, ctypes.c_uint32) for name in ("pieces", "width")),
    ]


class CopyJob(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("src_bases", "dst_bases")),
        *((name, ctypes.c_uint64) for name in ("src_start", "dst_start", "layer_bytes")),
        *((name, ctypes.c_uint64) for name in ("blocks", "words", "arrivals")),
        *((name, ctypes.c_uint32) for name in ("arrivals_end", "done_value")),
        *((name, ctypes.c_uint32) for name in ("gate", "first_layer")),
        *((name, ctypes.c_uint32) for name in ("layer_count", "tensor_count", "block_count")),
        ("pieces_per_layer", ctypes.c_uint32),
        ("walks", _Walk * 4),
    ]


@dataclass
class Side:
    """Where one side's blocks lie: bytes, and for each (layer, tensor, pair) an offset in them."""

    stride: list[int]  # of each tensor
    is_packed: bool
    regions: list[int] = field(default_factory=list)  # offsets; all layers there are
    packed: list[int] = field(default_factory=list)  # of each tensor in a layer
    layer_bytes: int = 0
    size: int = 0

    def offset(self, layer: int, tensor: int, block: int, index: int, first_layer: int) -> int:
        if self.is_packed:
            start = SPARE + (layer - first_layer) * self.layer_bytes
            return start + self.packed[tensor] + index * self.stride[tensor]
        return self.regions[layer * len(self.stride) + tensor] + block * self.stride[tensor]


@dataclass
class Work:
    """A copy: blocks of `sizes[tensor]` bytes of some layers, in accesses of `width` bytes."""

    width: int
    sizes: Sequence[int]
    layers: int
    first_layer: int
    layer_count: int
    pairs: Sequence[tuple[int, int]]
    src: Side
    dst: Side

    def expected(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        result = dst.copy()
        for layer in range(self.first_layer, self.first_layer + self.layer_count):
            for tensor, size in enumerate(self.sizes):
                for index, (here, there) in enumerate(self.pairs):
                    from_ = self.src.offset(layer, tensor, here, index, self.first_layer)
                    to = self.dst.offset(layer, tensor, there, index, self.first_layer)
                    result[to : to + size] = src[from_ : from_ + size]
        return result


def lay_out(
    side: Side, layers: int, blocks: int, width: int, count: int, packed_layers: int
) -> Side:
    """Gives a side its places: regions of `blocks` blocks, or `count` blocks in one run."""
    if side.is_packed:
        start = 0
        for stride in side.stride:
            side.packed.append(start)
            start += stride * count
        side.layer_bytes = start
        side.size = start * packed_layers + 2 * SPARE
        return side
    start = SPARE
    for _ in range(layers):
        for stride in side.stride:
            side.regions.append(start)
            start += blocks * stride + SPARE + width
            start -= start % width
    side.size = start + SPARE
    return side


class Launcher:
    """Runs jobs on one stream of one GPU."""

    def __init__(self, gpu: int, image: bytes) -> None:
        self.stream = cuda.Stream(gpu)
        self.words = cuda.Pinned(gpu, 4096)  # done, started, stop
        self._gpu = gpu
        self._arrivals = cuda.Memory(gpu, 4)
        self._arrivals.place().write(np.zeros(4, np.uint8))
        with cuda.on(gpu):
            self._module = cuda.ask("cuModuleLoadData", cuda.Handle, image)
            self._kernel = cuda.ask(
                "cuModuleGetFunction", cuda.Handle, self._module, b"rdma_kv_copy"
            )
        self._rounds = 0
        self._arrived = 0

    def word(self, number: int) -> int:
        return int(self.words.bytes[4 * number : 4 * number + 4].view(np.uint32)[0])

    def launch(
        self,
        work: Work,
        src: cuda.Place,
        dst: cuda.Place,
        *,
        grid: int,
        threads: int,
        is_stopped: bool | None = None,
    ) -> int:
        """Returns what its `done` word becomes; `is_stopped` None: it does not ask."""
        self._rounds += 1
        job = CopyJob()
        keep = [_table(self._gpu, [b for pair in work.pairs for b in pair], np.uint32)]
        job.blocks = keep[0].address
        for name, side, place in (("src", work.src, src), ("dst", work.dst, dst)):
            if side.is_packed:
                setattr(job, f"{name}_start", place.address + SPARE)
                job.layer_bytes = side.layer_bytes
            else:
                bases = [place.address + region for region in side.regions]
                keep.append(_table(self._gpu, bases, np.uint64))
                setattr(job, f"{name}_bases", keep[-1].address)
        job.words = self.words.address
        job.arrivals = self._arrivals.address
        self._arrived += grid
        job.arrivals_end = self._arrived
        job.done_value = self._rounds
        job.gate = int(is_stopped is not None)
        self.words.bytes[8:12].view(np.uint32)[0] = self._rounds if is_stopped else 0
        job.first_layer, job.layer_count = work.first_layer, work.layer_count
        job.tensor_count, job.block_count = len(work.sizes), len(work.pairs)
        for tensor, size in enumerate(work.sizes):
            walk = job.walks[tensor]
            walk.bytes, walk.width = size, work.width
            walk.pieces = -(-size // work.width // ACCESSES_PER_PIECE)
            walk.src_stride, walk.dst_stride = work.src.stride[tensor], work.dst.stride[tensor]
            walk.src_packed = work.src.packed[tensor] if work.src.is_packed else 0
            walk.dst_packed = work.dst.packed[tensor] if work.dst.is_packed else 0
            job.pieces_per_layer += walk.pieces * len(work.pairs)
        parameters = (cuda.Handle * 1)(ctypes.addressof(job))
        with cuda.on(self._gpu):
            cuda.call(
                "cuLaunchKernel",
                self._kernel,
                *(grid, 1, 1),
                *(threads, 1, 1),
                0,
                self.stream.raw,
                parameters,
                None,
            )
        self.stream.synchronize()  # its tables are kept until here
        return self._rounds


def _table(gpu: int, values: Sequence[int], dtype: type) -> cuda.Memory:
    content = np.array(values, dtype).view(np.uint8)
    memory = cuda.Memory(gpu, max(content.size, 1))
    memory.place(0, content.size).write(content)
    return memory
