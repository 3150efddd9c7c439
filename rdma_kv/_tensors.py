"""From a communicator's arguments to the layout of its cache, or to an error that says which one.

Only looks at numbers: shapes, strides, addresses. Nothing is registered, opened or written, so a
refusal leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rdma_kv._arguments import Role, whole
from rdma_kv._cuda_pointer import device_of
from rdma_kv._tensor_view import TensorView, view_of

if TYPE_CHECKING:
    from rdma_kv._core import Layout

# Kinds of tensors, as the core counts them.
_KEY, _VALUE, _KEY_SCALE, _VALUE_SCALE = range(4)


@dataclass(frozen=True)
class Cache:
    """One side's cache in numbers, and the tensors themselves so that they stay alive.

    ``bases`` and ``devices`` are layer-major: all tensors of layer 0, then of layer 1.
    """

    layers: int
    block_count: int
    tensors: tuple[tuple[int, int, int], ...]  # (kind, block_bytes, stride_bytes)
    dtype: str
    tp_size: int
    tp_rank: int
    bases: tuple[int, ...]
    devices: tuple[int, ...]
    owners: tuple[object, ...] = field(repr=False)

    def layout(self) -> Layout:
        """The same for the core, which borrows the memory: keep this object as long as that."""
        from rdma_kv import _core

        geometry = _core.Geometry(
            self.layers, self.block_count, self.tensors, self.dtype, self.tp_size, self.tp_rank
        )
        return _core.Layout(geometry, self.bases, self.devices)


@dataclass(frozen=True)
class _Column:
    """The tensors of one kind, one for each layer."""

    kind: int
    name: str
    block_bytes: int
    stride_bytes: int
    views: tuple[TensorView, ...]


def describe_cache(
    *,
    role: Role,
    gpu_idx: int,
    keys: Sequence[Any],
    values: Sequence[Any],
    block_number: int,
    block_bytes: int,
    key_scales: Sequence[Any] | None = None,
    value_scales: Sequence[Any] | None = None,
    scale_block_bytes: int | None = None,
    block_stride_bytes: int | None = None,
    tp_size: int = 1,
    tp_rank: int = 0,
) -> Cache:
    """Check the arguments of a communicator against each other and put them in numbers.

    The names in the messages are those of the communicator's parameters.

    Raises:
        ValueError: Two arguments contradict each other, or a tensor contradicts one.
        TypeError: An entry is neither a pointer nor a tensor.
    """
    gpu_idx = whole("gpu_idx", gpu_idx, -1)
    block_number = whole("block_number", block_number, 1)
    block_bytes = whole("block_bytes", block_bytes, 1)
    scale_bytes = whole("scale_block_bytes", scale_block_bytes or 0, 0)
    if block_stride_bytes is not None:
        block_stride_bytes = whole("block_stride_bytes", block_stride_bytes, 0)
        if block_stride_bytes < block_bytes:
            raise ValueError(
                f"block_stride_bytes={block_stride_bytes} is below block_bytes={block_bytes}: "
                "blocks would overlap"
            )
    tp_size, tp_rank = check_rank(tp_size, tp_rank)
    lists = [
        (_KEY, "local_key_cache", _entries("local_key_cache", keys), block_bytes),
        (_VALUE, "local_value_cache", _entries("local_value_cache", values), block_bytes),
        (_KEY_SCALE, "key_scales", _entries("key_scales", key_scales), scale_bytes),
        (_VALUE_SCALE, "value_scales", _entries("value_scales", value_scales), scale_bytes),
    ]
    _check_lengths([entries for _, _, entries, _ in lists])
    _check_scales(bool(lists[_KEY_SCALE][2]), scale_bytes)

    columns = []
    for kind, name, entries, payload in lists:
        if not entries:
            continue
        wanted_stride = block_stride_bytes if kind in (_KEY, _VALUE) else None
        views = tuple(view_of(e, f"{name}[{i}]", gpu_idx) for i, e in enumerate(entries))
        for i, view in enumerate(views):
            _check_view(f"{name}[{i}]", view, role, block_number, payload)
        stride = _common_stride(name, views, block_number, payload, wanted_stride)
        columns.append(_Column(kind, name, payload, stride, views))
    dtype = _common_dtype([c for c in columns if c.kind in (_KEY, _VALUE)])
    _common_dtype([c for c in columns if c.kind in (_KEY_SCALE, _VALUE_SCALE)])

    # Last, as this may start the CUDA driver.
    by_layer = [_located(c.views[i]) for i in range(len(lists[_KEY][2])) for c in columns]
    return Cache(
        layers=len(lists[_KEY][2]),
        block_count=block_number,
        tensors=tuple((c.kind, c.block_bytes, c.stride_bytes) for c in columns),
        dtype=dtype,
        tp_size=tp_size,
        tp_rank=tp_rank,
        bases=tuple(view.address for view in by_layer),
        devices=tuple(-1 if view.device is None else view.device for view in by_layer),
        owners=tuple(entry for _, _, entries, _ in lists for entry in entries),
    )


# ---- checks of the arguments alone -------------------------------------------------------------


def _entries(name: str, given: Any) -> list[Any]:
    """One item per layer: a list, an array of pointers, or a tensor with a dimension for layers."""
    if given is None:
        return []
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"{name} is {given!r}; give a list with one entry for each layer")
    return list(given)


def check_rank(tp_size: object, tp_rank: object, prefix: str = "tp_") -> tuple[int, int]:
    """Both as ints. Size 0 stands for "not declared": the peer says which heads this side holds."""
    size, rank = whole(f"{prefix}size", tp_size, 0), whole(f"{prefix}rank", tp_rank, 0)
    if rank >= max(size, 1):
        raise ValueError(
            f"{prefix}rank={rank} is not a rank of {prefix}size={size}; "
            f"allowed: 0 to {max(size, 1) - 1}"
        )
    return size, rank


def _check_lengths(lists: Sequence[Sequence[Any]]) -> None:
    keys, values, key_scales, value_scales = map(len, lists)
    if keys == 0:
        raise ValueError("local_key_cache is empty: give one tensor or pointer for each layer")
    if values not in (0, keys):
        raise ValueError(
            f"local_key_cache has {keys} layers but local_value_cache {values}: "
            "give as many, or no values at all for a key-only cache (MLA)"
        )
    if key_scales == 0 and value_scales == 0:
        return
    if key_scales != keys:
        raise ValueError(
            f"local_key_cache has {keys} layers but key_scales {key_scales}: give as many"
        )
    if value_scales != values:
        raise ValueError(
            f"local_value_cache has {values} layers but value_scales {value_scales}: give as many"
        )


def _check_scales(has_scales: bool, scale_block_bytes: int) -> None:
    if has_scales and scale_block_bytes <= 0:
        raise ValueError(
            f"scale_block_bytes={scale_block_bytes} but scales were given: "
            "say how many bytes of scales a block has"
        )
    if not has_scales and scale_block_bytes != 0:
        raise ValueError(
            f"scale_block_bytes={scale_block_bytes} but key_scales is empty: the scales would not "
            "be moved; give them, or leave scale_block_bytes out"
        )


# ---- checks of the tensors ---------------------------------------------------------------------


def _check_view(name: str, view: TensorView, role: Role, block_number: int, payload: int) -> None:
    if view.address <= 0:
        raise ValueError(f"{name} is at address {view.address}: not allocated, or not a pointer")
    if view.address >= 1 << 64:
        raise ValueError(f"{name} is {view.address}: no pointer has more than 64 bits")
    if view.is_readonly and role == "decode":
        raise ValueError(f"{name} is read-only, and decode is written to: give a writable array")
    if view.shape is None:
        return
    if not view.shape or view.shape[0] != block_number:
        first = view.shape[0] if view.shape else "missing"
        raise ValueError(
            f"{name} has shape {view.shape}: its first dimension is {first}, "
            f"block_number is {block_number}"
        )
    if view.block_bytes != payload:
        asked = "block_bytes" if "cache" in name else "scale_block_bytes"
        raise ValueError(
            f"{name} has {view.block_bytes} bytes per block (shape {view.shape}, {view.dtype}), "
            f"but {asked} is {payload}"
        )
    if not view.is_dense_in_block():
        raise ValueError(
            f"{name} is not contiguous within a block: shape {view.shape} has strides of "
            f"{view.strides_bytes} bytes; make it contiguous behind its first dimension"
        )


def _common_stride(
    name: str, views: Sequence[TensorView], block_number: int, payload: int, wanted: int | None
) -> int:
    """The one distance between blocks that all layers share: theirs, else the one asked for."""
    # A single block has no neighbour, so its stride means nothing.
    strides = {
        i: view.strides_bytes[0]
        for i, view in enumerate(views)
        if view.shape is not None and block_number > 1
    }
    if not strides:
        return payload if wanted is None else wanted
    first = next(iter(strides))
    for i, stride in strides.items():
        if stride < payload:
            raise ValueError(
                f"{name}[{i}] has a block stride of {stride} bytes, below the {payload} of a "
                "block: its blocks overlap or run backwards"
            )
        if wanted is not None and stride != wanted:
            raise ValueError(
                f"{name}[{i}] has a block stride of {stride} bytes, "
                f"but block_stride_bytes is {wanted}"
            )
        if stride != strides[first]:
            raise ValueError(
                f"{name}[{i}] has a block stride of {stride} bytes, {name}[{first}] one of "
                f"{strides[first]}: all layers must share one"
            )
    return strides[first]


def _common_dtype(columns: Sequence[_Column]) -> str:
    """The one dtype of all tensors that tell theirs; "" when none does."""
    told = [
        (f"{column.name}[{i}]", view.dtype)
        for column in columns
        for i, view in enumerate(column.views)
        if view.dtype
    ]
    for name, dtype in told:
        if dtype != told[0][1]:
            raise ValueError(f"{name} is {dtype}, {told[0][0]} is {told[0][1]}: use one dtype")
    return told[0][1] if told else ""


def _located(view: TensorView) -> TensorView:
    return view if view.device is not None else replace(view, device=device_of(view.address))
