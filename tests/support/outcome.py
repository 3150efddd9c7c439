"""How calls end, as values that a test can look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from rdma_kv import Transfer, TransferError
from support.patience import scaled

Failure = TypeVar("Failure", bound=Exception)


def ending(transfer: Transfer) -> TransferError | None:
    """Waits for the end; the error it failed with, or None."""
    try:
        transfer.wait()
    except TransferError as error:
        return error
    return None


def first_failure(call: Callable[[], object], kind: type[Failure], within_s: float) -> Failure:
    """Calls until the first error, which must be of this kind and come in time."""
    deadline = time.monotonic() + scaled(within_s)
    with pytest.raises(kind) as failure:  # noqa: PT012 - how many calls it takes is open
        while time.monotonic() < deadline:
            call()
    return failure.value
