"""Two processes of this machine, which nobody else needs to reach."""

from __future__ import annotations

import os
import socket

HOST = "127.0.0.1"
LOOPBACK = "lo"


def local_environment() -> dict[str, str]:
    """The environment, with decode listening on loopback only unless it says otherwise."""
    environment = dict(os.environ)
    if LOOPBACK in (name for _, name in socket.if_nameindex()):
        environment.setdefault("KVCACHE_SOCKET_IFNAME", LOOPBACK)
    return environment
