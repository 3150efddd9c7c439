"""Who connects to a port of decode and does not behave."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq

from rdma_kv import _messages as wire
from support.cache import Shape
from support.patience import scaled

MIB = 1 << 20
# What ZeroMQ 3.0 says first, without security: signature, version, mechanism, padding.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
# The command that ends ZeroMQ's handshake.
_PROPERTIES = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([6 + len(_PROPERTIES)]) + b"\x05READY" + _PROPERTIES
# HELLO of docs/wire.md, whole and well-formed, with a token that nobody gave out.
HELLO = struct.pack("<BBHIQ", 1, 0, 0, 44, 0)
HELLO += struct.pack("<4sHHHHQ16sQ", b"RKVS", 1, 0, 1, 0, 7, bytes(16), 7)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def message(size: int, of_it: int | None = None) -> bytes:
    """A ZeroMQ message of noise, or its first bytes."""
    return b"\x02" + struct.pack(">Q", size) + noise(size if of_it is None else of_it)


class Stranger:
    """One connection."""

    def __init__(self, address: Sequence[str]) -> None:
        self._socket = socket.create_connection((address[0], int(address[1])), scaled(10))
        # A side that reads no more must not stop the test.
        self._socket.settimeout(0.5)

    def say(self, what: bytes) -> int:
        """How many bytes were taken, until the other side has closed or takes no more."""
        said = 0
        with contextlib.suppress(OSError):
            for start in range(0, len(what), MIB):
                said += self._socket.send(what[start : start + MIB])
        return said

    def talk(self, said: Sequence[bytes]) -> None:
        """Waits for some answer to each."""
        for what in said:
            self.say(what)
            with contextlib.suppress(OSError):
                self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def strangers(address: Sequence[str], count: int) -> Iterator[list[Stranger]]:
    with contextlib.ExitStack() as cleanup:
        yield [cleanup.enter_context(contextlib.closing(Stranger(address))) for _ in range(count)]


def flood(address: Sequence[str], begin: Sequence[bytes], piece: bytes, total: int) -> None:
    """So many bytes of that, on as many connections as it takes; no answer is read any more."""
    said = 0
    while said < total:
        with contextlib.closing(Stranger(address)) as stranger:
            stranger.talk(begin)
            before = said
            while said < total and (taken := stranger.say(piece)):
                said += taken
            said = max(said, before + 4 * MIB)  # one that is cut off at once counts, too


def data_port_of(address: Sequence[str], shape: Shape) -> str:
    """As decode tells it to every prefill side that says hello."""
    tensors = [(kind, *sizes) for kind, sizes in enumerate(shape.tensors().values())]
    hello = wire.Hello(
        epoch=5,
        role="prefill",
        host=wire.Host(boot_id="elsewhere", pid=os.getpid()),
        geometry=wire.Geometry(
            layers=shape.layers, block_count=shape.blocks, tensors=tensors, dtype=shape.dtype
        ),
        transports=["tcp"],
    )
    with zmq.Context() as context, context.socket(zmq.DEALER) as line:
        line.linger = 0
        line.connect("tcp://" + ":".join(address))
        line.send(wire.encode(hello))
        assert line.poll(scaled(10_000)), "no welcome"
        welcome = wire.decode_from_decode(line.recv())
        line.send(wire.encode(wire.Bye(epoch=5, reason="it was a question")))
    assert isinstance(welcome, wire.Welcome), welcome
    return str(welcome.data_port)


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
