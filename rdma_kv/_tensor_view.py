"""One entry of a cache list, whatever library it comes from: its address and, if it has, its shape.

Nothing here imports torch or any other tensor library, or reads a byte of the tensors.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdma_kv._cuda_pointer import HOST


@dataclass(frozen=True)
class TensorView:
    """What is known of one entry. A bare pointer has an address and nothing else."""

    address: int
    shape: tuple[int, ...] | None = None
    strides_bytes: tuple[int, ...] = ()
    item_bytes: int = 0
    dtype: str = ""
    device: int | None = None  # None: ask the driver
    is_readonly: bool = False

    @property
    def block_bytes(self) -> int:
        """Payload of one block: everything behind the first dimension."""
        return math.prod((self.shape or (0,))[1:]) * self.item_bytes

    def is_dense_in_block(self) -> bool:
        """Whether the bytes of a block follow one another in the order of its dimensions."""
        expected = self.item_bytes
        for length, stride in zip(
            reversed((self.shape or ())[1:]), reversed(self.strides_bytes[1:]), strict=True
        ):
            if length > 1 and stride != expected:  # the stride of a single element says nothing
                return False
            expected *= length
        return True


def view_of(entry: Any, name: str, gpu_idx: int) -> TensorView:
    """Look at one entry of a cache list.

    Args:
        entry: An integer, or anything with ``data_ptr()``, ``__array_interface__`` or
            ``__cuda_array_interface__``.
        name: What to call it in messages, as in ``local_key_cache[3]``.
        gpu_idx: The device of a CUDA tensor that does not say which one it is on.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(entry, numbers.Integral) and not isinstance(entry, bool):
        return TensorView(address=int(entry))
    if callable(getattr(entry, "data_ptr", None)):
        try:
            return _view_of_tensor(entry, gpu_idx)
        except RuntimeError as error:  # torch: a sparse or fake tensor
            raise TypeError(
                f"{name} is a {type(entry).__name__} without plain memory ({error}); "
                "give a dense tensor"
            ) from None
    for attribute in ("__cuda_array_interface__", "__array_interface__"):
        interface = getattr(entry, attribute, None)
        # Scalars of NumPy have one too, but no memory that outlives the expression.
        if isinstance(interface, dict) and not isinstance(entry, np.generic):
            return _view_of_interface(entry, interface, attribute.startswith("__cuda"))
    raise TypeError(
        f"{name} is a {type(entry).__name__}; give a pointer as int, or a tensor with data_ptr(), "
        "__array_interface__ or __cuda_array_interface__"
    )


def _view_of_tensor(tensor: Any, gpu_idx: int) -> TensorView:
    address = int(tensor.data_ptr())
    if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
        return TensorView(address=address)
    item_bytes = int(tensor.element_size())
    steps = tensor.stride() if callable(getattr(tensor, "stride", None)) else tensor.strides
    device = getattr(tensor, "device", None)
    kind = getattr(device, "type", None)
    return TensorView(
        address=address,
        shape=tuple(int(length) for length in tensor.shape),
        strides_bytes=tuple(int(step) * item_bytes for step in steps),
        item_bytes=item_bytes,
        dtype=_dtype_name(tensor.dtype),
        device=_device_number(kind, getattr(device, "index", None), gpu_idx),
    )


def _device_number(kind: str | None, index: int | None, gpu_idx: int) -> int | None:
    if kind == "cuda":
        return index if index is not None else max(gpu_idx, 0)
    # A library with other words for devices (kind None) leaves the question to the driver.
    return None if kind is None else HOST


def _view_of_interface(owner: Any, interface: dict[str, Any], is_cuda: bool) -> TensorView:
    shape = tuple(int(length) for length in interface["shape"])
    dtype = np.dtype(interface["typestr"])
    address, is_readonly = interface["data"]
    strides = interface.get("strides")
    if strides is None:  # C order
        strides = [dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return TensorView(
        address=int(address),
        shape=shape,
        strides_bytes=tuple(int(stride) for stride in strides),
        item_bytes=dtype.itemsize,
        # The owner's name is the better one: an interface cannot spell bfloat16.
        dtype=_dtype_name(getattr(owner, "dtype", dtype)),
        device=None if is_cuda else HOST,
        is_readonly=bool(is_readonly),
    )


def _dtype_name(dtype: object) -> str:
    """``float16`` from ``torch.float16``, ``dtype('<f2')`` and the like."""
    return str(getattr(dtype, "name", None) or dtype).rpartition(".")[2]
