"""What ``connect`` returns."""

from __future__ import annotations

import enum


class ConnectStatus(enum.IntEnum):
    """0 and true when connected, another number and false when not.

    Callers exist that test ``connect(...) == 0`` and callers that test ``if connect(...)``; a plain
    integer cannot be right for both.
    """

    CONNECTED = 0
    ERROR = 2
    TIMEOUT = 3
    BAD_PARAMETERS = 4

    def __bool__(self) -> bool:
        return self == ConnectStatus.CONNECTED

    # Callers put it in their log lines; what IntEnum prints there depends on Python's version.
    def __str__(self) -> str:
        return str(int(self))

    def __format__(self, format_spec: str) -> str:
        return format(int(self), format_spec)
