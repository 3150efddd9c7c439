"""Looks who listens at an address, before ZeroMQ retries in silence against the wrong thing.

ZeroMQ's wire (ZMTP 3, RFC 23) starts with 64 bytes from each side: a signature of 10, the version,
and the security mechanism in 20. The listener's are read once, on a connection of their own.
"""

from __future__ import annotations

import socket
import time

_SIGNATURE = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"
_GREETING_BYTES = 64
# No more than that: told a mechanism that it does not want, the peer would hang up at once.
_SIGNATURE_AND_VERSION = _SIGNATURE + b"\x03\x00"
_MECHANISM = slice(12, 32)


class NotZeroMqError(Exception):
    """Something else answered; says what it began with."""


def read_mechanism(address: str, port: int, timeout_s: float) -> str:
    """The security mechanism of the ZeroMQ socket that listens there: "NULL", "CURVE", ...

    Raises:
        OSError: The connection failed, or TimeoutError: there was no whole greeting in time.
        NotZeroMqError: What listens there does not speak ZeroMQ.
    """
    deadline = time.monotonic() + timeout_s
    received = b""
    with socket.create_connection((address, port), timeout_s) as line:
        line.sendall(_SIGNATURE_AND_VERSION)
        while len(received) < _GREETING_BYTES:
            line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = line.recv(_GREETING_BYTES - len(received))
            except ConnectionResetError:
                part = b""
            received += part
            is_ours = received[:1] == _SIGNATURE[:1] and received[9:10] in (b"", b"\x7f")
            if not part or not is_ours:
                what = f"it began with {received[:24]!r}" if received else "it hung up"
                raise NotZeroMqError(what)
    return received[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
