"""Addresses, ports and hosts, as far as both ends of the control plane need them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from rdma_kv._errors import ConfigError, HandshakeError

ALL_INTERFACES = "0.0.0.0"

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_MOST_INTERFACE_NAME = 15


def resolve(host: str, port: int) -> str:
    """The numeric address of a host, IPv4 first: the data port needs one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HandshakeError(
            f"connect to {host}:{port}: the name {host!r} has no address: "
            f"{getattr(error, 'strerror', None) or error}; give a host that this machine knows, "
            "without the port"
        ) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def endpoint(address: str, port: int | str) -> str:
    """How ZeroMQ spells a numeric address and a port."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this host can reach the address."""
    return ipaddress.ip_address(address).is_loopback


def interface_address(interface: str | None) -> str:
    """Where decode listens: the IPv4 address of an interface, or all interfaces for None.

    Raises:
        ConfigError: There is no such interface, or it has no IPv4 address.
    """
    if interface is None:
        return ALL_INTERFACES
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        raise ConfigError(
            f"KVCACHE_SOCKET_IFNAME={interface}: no such interface; "
            f"this machine has {', '.join(names)}"
        )
    request = struct.pack("256s", interface.encode()[:_MOST_INTERFACE_NAME])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            raise ConfigError(
                f"KVCACHE_SOCKET_IFNAME={interface}: the interface has no IPv4 address: "
                f"{error.strerror}"
            ) from error
    return socket.inet_ntoa(answer[20:24])


def boot_id() -> str:
    """The same for all processes under one running kernel, and for no others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:64]
    except OSError:  # /proc is masked: then no two processes are known to share a host
        return f"unknown-{os.getpid()}-{os.urandom(8).hex()}"
