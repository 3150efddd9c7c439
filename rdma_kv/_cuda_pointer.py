"""Asks the CUDA driver where a pointer points. Without a driver, everything is host memory."""

from __future__ import annotations

import ctypes
import functools

HOST = -1

# From cuda.h; both are part of the driver's stable interface.
_POINTER_ATTRIBUTE_MEMORY_TYPE = 2
_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9
_MEMORY_TYPE_DEVICE = 2


def device_of(address: int) -> int:
    """The CUDA device that owns the memory at ``address``, or ``HOST``."""
    driver = _driver()
    if driver is None:
        return HOST
    # The driver refuses pointers that it never saw: those are plain host memory.
    if _attribute(driver, address, _POINTER_ATTRIBUTE_MEMORY_TYPE) != _MEMORY_TYPE_DEVICE:
        return HOST
    ordinal = _attribute(driver, address, _POINTER_ATTRIBUTE_DEVICE_ORDINAL)
    return HOST if ordinal is None else ordinal


@functools.cache
def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None  # not 0: no device, or none is visible


def _attribute(driver: ctypes.CDLL, address: int, attribute: int) -> int | None:
    value = ctypes.c_int(0)
    status = driver.cuPointerGetAttribute(
        ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_uint64(address)
    )
    return value.value if status == 0 else None
