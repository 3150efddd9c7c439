"""The arguments that both faces take from users: roles, ports and block ids."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Role = Literal["prefill", "decode"]
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)

BlockIds = Sequence[int] | NDArray[np.int32] | NDArray[np.int64]


def check_role(role: object) -> Role:
    """``role`` itself, when it is one."""
    if role == "prefill" or role == "decode":
        return role
    raise ValueError(f"role is {role!r}; allowed: 'prefill' (writes), 'decode' (is written to)")


def check_host(host: object) -> str:
    """The name or address of a host, as text."""
    if not isinstance(host, (str, IPv4Address, IPv6Address)):
        raise TypeError(f"ip is {host!r}; give the address or the name of a host as a string")
    name = str(host)
    if not name or "/" in name or name.isspace():
        raise ValueError(
            f"ip is {name!r}; give the address or the name of a host alone, the port goes apart"
        )
    return name


def check_port(port: object) -> int:
    """A TCP port from its number or its digits; 0 stands for any free one."""
    try:
        number = int(port) if isinstance(port, str) else operator.index(cast(Any, port))
    except (TypeError, ValueError):
        number = -1
    # int() also takes "1_0", " 1" and "+1": typing errors, more likely than ports.
    is_plain = not isinstance(port, str) or (port.isascii() and port.isdigit())
    if isinstance(port, bool) or not is_plain or not 0 <= number <= 65535:
        raise ValueError(f"port is {port!r}; allowed: 0 to 65535, as a number or a string")
    return number


def whole(name: str, value: object, least: int) -> int:
    """An integer of Python, NumPy or the like, at least ``least``, as an int."""
    try:
        number = operator.index(cast(Any, value))
    except TypeError:
        raise TypeError(f"{name} is {value!r}; give a whole number") from None
    if number < least:
        raise ValueError(f"{name} is {number}; must be {least} or more")
    return number


def as_ids(ids: object, name: str = "block ids") -> BlockIds:
    """Block ids as the core takes them: without a Python object per block where there is none yet.

    Lists and tuples pass through (the core looks at their items), as do NumPy arrays; tensors of
    other libraries are copied to the host. Any empty array will do, whatever its type.

    Raises:
        TypeError: Not integers of 32 or 64 bits, or no sequence at all.
        ValueError: Not one-dimensional.
    """
    if isinstance(ids, (list, tuple)):
        return ids
    # What engines pass: without the general way, which costs more than the core's whole plan. One
    # of each type exists, but for other byte orders; the core takes any stride.
    if type(ids) is np.ndarray and ids.ndim == 1 and (ids.dtype is _INT64 or ids.dtype is _INT32):
        return ids
    if isinstance(ids, range):
        return np.arange(ids.start, ids.stop, ids.step, dtype=np.int64)
    found = _as_array(ids)
    if found is None:
        raise TypeError(
            f"{name}: a {type(ids).__name__} holds no block ids; "
            "give a list, a tuple or an array of int32 or int64"
        )
    shape, dtype = tuple(found.shape), str(found.dtype).rpartition(".")[2]
    if len(shape) != 1:
        raise ValueError(f"{name}: shape {shape} has {len(shape)} dimensions; give one dimension")
    if shape[0] == 0:
        return ()
    if dtype not in ("int32", "int64"):
        raise TypeError(f"{name}: dtype {dtype} is not allowed; convert to int32 or int64")
    if not isinstance(found, np.ndarray):
        found = found.detach().cpu().numpy()
    return cast(BlockIds, np.ascontiguousarray(found))


def _as_array(ids: object) -> Any:
    """Something with a shape and a dtype: ``ids`` itself, or a view of its buffer; or None."""
    if isinstance(ids, np.ndarray) or hasattr(ids, "detach"):
        return ids
    if isinstance(ids, (array, memoryview)) or hasattr(ids, "__array__"):
        return np.asarray(ids)
    return None
