"""Three generations of constructor arguments, brought to one."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdma_kv._arguments import whole

_FIRST = ("role", "gpu_idx", "port", "key_cache", "value_cache", "block_number", "block_bytes")
_TP = ("prefill_tp_size", "prefill_tp_idx")
_SCALES = ("key_scales", "value_scales", "scale_block_bytes")

# The same argument has had several names.
_NAMES = {
    **{name: name for name in (*_FIRST, *_SCALES, *_TP)},
    "splitwise_role": "role",
    "local_key_cache": "key_cache",
    "local_value_cache": "value_cache",
    "key_ptrs": "key_cache",
    "value_ptrs": "value_cache",
    "key_cache_ptrs": "key_cache",
    "value_cache_ptrs": "value_cache",
    "key_scale_ptrs": "key_scales",
    "value_scale_ptrs": "value_scales",
}


@dataclass(frozen=True)
class Arguments:
    """What the constructor was told, whichever way."""

    role: Any
    gpu_idx: Any
    port: Any
    key_cache: Any
    value_cache: Any
    block_number: Any
    block_bytes: Any
    key_scales: Any = None
    value_scales: Any = None
    scale_block_bytes: Any = 0
    prefill_tp_size: int = 1
    prefill_tp_idx: int = 0

    def __post_init__(self) -> None:
        size = whole("prefill_tp_size", self.prefill_tp_size, 1)
        rank = whole("prefill_tp_idx", self.prefill_tp_idx, 0)
        if rank >= size:
            raise ValueError(
                f"prefill_tp_idx={rank} is not a rank of prefill_tp_size={size}; "
                f"allowed: 0 to {size - 1}"
            )

    @property
    def has_scales(self) -> bool:
        """Callers without scales pass empty lists, and any number for their bytes."""
        return any(
            given is not None and len(given) for given in (self.key_scales, self.value_scales)
        )


def parse(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """The constructor's arguments of any generation by their one name.

    Raises:
        TypeError: Too many, too few, unknown or repeated arguments, as Python itself does.
        ValueError: The tensor-parallel rank does not exist.
    """
    order = _order_of(args)
    if len(args) > len(order):
        raise TypeError(
            f"RDMACommunicator takes at most {len(order)} positional arguments, not {len(args)}"
        )
    given = dict(zip(order, args, strict=False))
    for keyword, value in kwargs.items():
        name = _NAMES.get(keyword)
        if name is None:
            raise TypeError(f"RDMACommunicator got an unexpected keyword argument {keyword!r}")
        if name in given:
            raise TypeError(f"RDMACommunicator got {name!r} twice, once as {keyword!r}")
        given[name] = value
    if missing := [name for name in _FIRST if name not in given]:
        raise TypeError(f"RDMACommunicator is missing {', '.join(map(repr, missing))}")
    return Arguments(**given)


def _order_of(args: Sequence[Any]) -> tuple[str, ...]:
    """What the positions mean: the eighth is a number in one generation, a list in the other."""
    eighth = args[len(_FIRST)] if len(args) > len(_FIRST) else None
    if isinstance(eighth, numbers.Integral):
        return (*_FIRST, *_TP)
    if eighth is None or (hasattr(eighth, "__len__") and not isinstance(eighth, str)):
        return (*_FIRST, *_SCALES, *_TP)
    raise TypeError(
        f"the eighth argument of RDMACommunicator is {eighth!r}; give prefill_tp_size as a whole "
        "number, or key_scale_ptrs as a list"
    )
