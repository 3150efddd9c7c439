"""One call of write_cache: its arguments, checked before anything moves."""

from __future__ import annotations

import numbers
import operator
import time
from typing import Any

from rdma_kv._arguments import BlockIds
from rdma_kv._peers import Peers, Remote

MOST_TAG = 2**32 - 1

# Longer waits are cut: neither the system's clocks nor its poll() count up to infinity.
_MOST_SECONDS = 7 * 24 * 3600.0


class WriteCall:
    """One call of write_cache: its arguments, checked, and whether it may still connect anew."""

    def __init__(
        self,
        peers: Peers,
        target: Any,
        local: BlockIds,
        remote: BlockIds,
        first_layer: int,
        layer_count: int,
        tag: int,
        deadline: float,
        may_reconnect: bool,
    ) -> None:
        self._peers = peers
        self._target = target
        self._what = (local, remote, first_layer, layer_count, tag)
        self._deadline = deadline
        self._may_reconnect = may_reconnect

    def remote(self) -> Remote:
        """The peer; connects again, first, when it is down and that is allowed.

        A write that has begun is never repeated: decode may have been told of it already.
        """
        remote: Remote | None = self._target.remote
        if remote is not None and remote.is_alive:
            return remote
        return self._peers.revive(self._target, self._left_s(), allowed=self._may_reconnect)

    def arguments(self) -> tuple[BlockIds, BlockIds, int, int, int, float]:
        """For the core; the deadline counts from the call, reconnecting included."""
        return (*self._what, self._left_s())

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def check_tag(tag: int, *, least: int) -> int:
    if isinstance(tag, bool) or not hasattr(tag, "__index__"):
        raise TypeError(f"tag is {tag!r}; give a whole number")
    number = operator.index(tag)
    if not least <= number <= MOST_TAG:
        raise ValueError(f"tag is {number}; must be from {least} to {MOST_TAG}")
    return number


def check_timeout(timeout_s: float | None, default_s: float) -> float:
    if timeout_s is None:
        return default_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, numbers.Real):
        raise TypeError(f"timeout_s is {timeout_s!r}; give a number of seconds")
    if not timeout_s >= 0:  # NaN too
        raise ValueError(f"timeout_s is {timeout_s}; must be 0 or more")
    return min(float(timeout_s), _MOST_SECONDS)


def wait_for(after: Any) -> None:
    """Source order: the blocks are host memory, so waiting here is all that is needed."""
    synchronize = getattr(after, "synchronize", None)
    if not callable(synchronize):
        raise ValueError(
            f"after is a {type(after).__name__}; give something with a synchronize() method, "
            "such as a torch.cuda.Event"
        )
    synchronize()
