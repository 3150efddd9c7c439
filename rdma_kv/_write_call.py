"""One call of write_cache: its arguments, checked before anything moves."""

from __future__ import annotations

import numbers
import operator
import time
from typing import Any, Literal

from rdma_kv._arguments import BlockIds
from rdma_kv._handshake import check_life
from rdma_kv._peers import Peers, Remote

MOST_TAG = 2**32 - 1

# Whether a write whose link is down connects by itself, and to which life of the peer.
Reconnect = bool | Literal["same_life"]

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
        notify: bool,
        after: After,
        deadline: float,
        reconnect: Reconnect,
        peer_epoch: int | None,
    ) -> None:
        self._peers = peers
        self._target = target
        self._what = (local, remote, first_layer, layer_count, tag)
        self._notify = notify
        self._after = after
        self._deadline = deadline
        self._reconnect = reconnect
        self._peer_epoch = peer_epoch

    def remote(self) -> Remote:
        """The peer; connects again, first, when it is down and that is allowed.

        A write that has begun is never repeated: decode may have been told of it already.
        """
        remote: Remote | None = self._target.remote
        epoch = self._peer_epoch
        if remote is not None and remote.is_alive:
            check_life(self._target.name, remote.connection.epoch, epoch)
            return remote
        if epoch is None and self._reconnect == "same_life" and remote is not None:
            epoch = remote.connection.epoch
        is_allowed = self._reconnect is not False
        return self._peers.revive(self._target, self._left_s(), allowed=is_allowed, epoch=epoch)

    def arguments(self) -> tuple[BlockIds, BlockIds, int, int, int, float, bool, After]:
        """For the core; the deadline counts from the call, reconnecting included."""
        return (*self._what, self._left_s(), self._notify, self._after)

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def check_tag(tag: int, *, least: int) -> int:
    if isinstance(tag, bool) or not hasattr(tag, "__index__"):
        raise TypeError(f"tag is {tag!r}; give a whole number")
    number = operator.index(tag)
    if not least <= number <= MOST_TAG:
        raise ValueError(f"tag is {number}; must be from {least} to {MOST_TAG}")
    return number


def check_reconnect(reconnect: Reconnect) -> Reconnect:
    if reconnect in (True, False, "same_life"):
        return reconnect
    raise ValueError(f"reconnect is {reconnect!r}; must be True, False or 'same_life'")


def check_epoch(epoch: int | None) -> int | None:
    if epoch is None:
        return None
    if isinstance(epoch, bool) or not hasattr(epoch, "__index__"):
        raise TypeError(f"peer_epoch is {epoch!r}; give decode's `epoch`, a whole number, or None")
    number = operator.index(epoch)
    if not 1 <= number < 2**64:
        raise ValueError(f"peer_epoch is {number}; must be decode's `epoch`, from 1 to 2**64-1")
    return number


def check_timeout(timeout_s: float | None, default_s: float) -> float:
    if timeout_s is None:
        return default_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, numbers.Real):
        raise TypeError(f"timeout_s is {timeout_s!r}; give a number of seconds")
    if not timeout_s >= 0:  # NaN too
        raise ValueError(f"timeout_s is {timeout_s}; must be 0 or more")
    return min(float(timeout_s), _MOST_SECONDS)


# What a write waits for, for the core: (kind, handle).
After = tuple[int, int]
NOTHING: After = (0, 0)
_EVENT, _STREAM = 1, 2


def order_after(after: Any) -> After:
    """Source order: the handle of a CUDA event or stream, for the core to wait for.

    Something else that can be waited for is waited for here.
    """
    if after is None:
        return NOTHING
    if isinstance(after, numbers.Integral) and not isinstance(after, bool):
        return _EVENT, _handle(int(after), after)
    # torch's names, then those of CUDA's protocol for streams, then CuPy's.
    if (event := getattr(after, "cuda_event", None)) is not None:
        return _EVENT, _handle(int(event), after)
    if (stream := getattr(after, "cuda_stream", None)) is not None:
        return _STREAM, int(stream)
    if callable(protocol := getattr(after, "__cuda_stream__", None)):
        return _STREAM, int(protocol()[1])
    if isinstance(pointer := getattr(after, "ptr", None), int) and hasattr(after, "record"):
        is_stream = hasattr(after, "wait_event")
        return (_STREAM, pointer) if is_stream else (_EVENT, _handle(pointer, after))
    synchronize = getattr(after, "synchronize", None)
    if not callable(synchronize):
        raise ValueError(
            f"after is a {type(after).__name__}; give a torch.cuda.Event, a stream, the handle of "
            "a CUevent, or something with a synchronize() method"
        )
    synchronize()
    return NOTHING


def _handle(number: int, after: Any) -> int:
    if 0 < number < 2**64:
        return number
    raise ValueError(
        f"after is {after!r}, whose handle is {number}: the event was not recorded; call its "
        "record() before the write"
    )
