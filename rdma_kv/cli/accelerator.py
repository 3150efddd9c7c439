"""The GPU that a tool works on, or the CPU in its place: then all but CUDA itself is the same code.

Whoever imports this has found torch installed; CUDA starts with `open_accelerator`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import torch


class AcceleratorError(Exception):
    """There is no such GPU here; the text names the remedy."""


class Mark(ABC):
    """A point in the order of a device's work. Given as `after=`, a write waits for it."""

    @abstractmethod
    def synchronize(self) -> None: ...


class Timeline(ABC):
    """When marks were passed, on the clock of time.monotonic_ns()."""

    @abstractmethod
    def at_ns(self, mark: Any) -> float:
        """Of a mark that has been passed."""


class Accelerator(ABC):
    """One device of this process. Its work is what runs on torch's current stream."""

    device: torch.device
    gpu_idx: int  # for a communicator; -1: none
    name: str

    @abstractmethod
    def mark(self) -> Any:
        """Recorded behind the work that was given to the device so far."""

    @abstractmethod
    def synchronize(self) -> None:
        """Waits for the work that was given so far, and not for transfers beside it."""

    @abstractmethod
    def timeline(self) -> Timeline:
        """Waits for the work so far; marks recorded from now on can be placed on it."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Of the device's memory; None: not worth asking."""


def open_accelerator(device: str, index: int) -> Accelerator:
    """`device` is "cuda", or anything else for the CPU. Raises AcceleratorError."""
    return Cuda(index) if device == "cuda" else Cpu()


def gpu_count() -> int:
    """Raises AcceleratorError when there is none, and says what is missing."""
    if not torch.backends.cuda.is_built():
        raise AcceleratorError(
            f"torch {torch.__version__} is built without CUDA: install a CUDA build, "
            "python -m pip install torch"
        )
    count: int = torch.cuda.device_count()
    if count == 0 or not torch.cuda.is_available():
        raise AcceleratorError(
            f"torch {torch.__version__} sees no CUDA device: does `nvidia-smi` list one, and does "
            "CUDA_VISIBLE_DEVICES hide it?"
        )
    return count


class Cuda(Accelerator):
    def __init__(self, index: int) -> None:
        count = gpu_count()
        if not 0 <= index < count:
            raise AcceleratorError(f"there is no GPU {index}: torch sees {count}, from number 0")
        torch.cuda.set_device(index)
        self.device = torch.device("cuda", index)
        self.gpu_idx = index
        self.name = f"{torch.cuda.get_device_name(index)} (GPU {index})"

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def synchronize(self) -> None:
        torch.cuda.current_stream(self.device).synchronize()

    def timeline(self) -> Timeline:
        return _CudaTimeline(self)

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0])


class _CudaTimeline(Timeline):
    def __init__(self, cuda: Cuda) -> None:
        cuda.mark().synchronize()  # creates and warms up what an event needs
        cuda.synchronize()
        before_ns = time.monotonic_ns()
        self._origin = cuda.mark()
        self._origin.synchronize()
        # Nothing else is on the stream: the event was passed between the two looks at the clock.
        self._origin_ns = (before_ns + time.monotonic_ns()) / 2

    def at_ns(self, mark: torch.cuda.Event) -> float:
        passed_ms: float = self._origin.elapsed_time(mark)
        return self._origin_ns + passed_ms * 1e6


class Cpu(Accelerator):
    """Work ends before the call that gives it returns, so a mark is a look at the clock."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.gpu_idx = -1
        self.name = "CPU"

    def mark(self) -> CpuMark:
        return CpuMark()

    def synchronize(self) -> None:
        """There is nothing to wait for."""

    def timeline(self) -> Timeline:
        return _CpuTimeline()

    def free_bytes(self) -> None:
        return None


class CpuMark(Mark):
    def __init__(self) -> None:
        self.passed_ns = time.monotonic_ns()

    def synchronize(self) -> None:
        """It was passed when it was made."""


class _CpuTimeline(Timeline):
    def at_ns(self, mark: CpuMark) -> float:
        return float(mark.passed_ns)
