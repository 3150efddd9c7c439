"""Connections to a decode's ports by somebody who is no prefill."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time

import zmq

from rdma_kv.cli.local import HOST

_HELLO_FRAME = 1
_WRITE_FRAME = 3


class Strangers:
    """Never blocks: what a decode does not take is not sent."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"strangers {seed}")
        self._held: list[tuple[float, socket.socket | zmq.Socket[bytes]]] = []
        self._context = zmq.Context()

    def visit(self, ports: list[int], control_port: int) -> str:
        """One visit to one of the ports; returns what it was."""
        kind = self._random.choice(("silence", "garbage", "half", "frames", "messages", "much"))
        if kind == "messages":
            self._send_messages(control_port)
            return "strangers at the control port"
        port = self._random.choice(ports)
        self._send_bytes(port, self._bytes(kind, is_control=port == control_port))
        return f"strangers at the {'control' if port == control_port else 'data'} port"

    def leave(self, *, all_of_them: bool = False) -> None:
        """Those whose time has come."""
        now = time.monotonic()
        staying = []
        for until, held in self._held:
            if all_of_them or until < now:
                held.close()
            else:
                staying.append((until, held))
        self._held = staying

    def close(self) -> None:
        self.leave(all_of_them=True)
        self._context.destroy(linger=0)

    def _bytes(self, kind: str, *, is_control: bool) -> bytes:
        if kind == "silence":
            return b""
        if kind == "garbage":
            return self._random.randbytes(self._random.randint(1, 65536))
        if kind == "much":
            return os.urandom(4 << 20)
        if is_control:  # ZeroMQ's own greeting, whole or cut short, then no sense
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
            if kind == "half":
                return greeting[: self._random.randint(1, 63)]
            return greeting + self._random.randbytes(300)
        hello = struct.pack("<4sHHHHQ16sQ", b"RKVS", 1, 0, 1, 0, 1, os.urandom(16), 7)
        frame = struct.pack("<BBHIQ", _HELLO_FRAME, 0, 0, len(hello), 0) + hello
        if kind == "half":
            return frame[: self._random.randint(1, len(frame) - 1)]
        return frame + struct.pack("<BBHIQ", _WRITE_FRAME, 0, 0, 0xFFFFFFFF, 1) + bytes(4096)

    def _send_bytes(self, port: int, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens just now, or it hung up at once
            stranger = socket.create_connection((HOST, port), timeout=0.5)
            self._hold(stranger)
            stranger.setblocking(False)
            while data:
                data = data[stranger.send(data) :]

    def _send_messages(self, port: int) -> None:
        stranger = self._context.socket(zmq.DEALER)
        stranger.linger = 0
        stranger.connect(f"tcp://{HOST}:{port}")
        self._hold(stranger)
        for size in (0, 3, 1000, 300_000):
            with contextlib.suppress(zmq.Again):
                stranger.send(self._random.randbytes(size), zmq.NOBLOCK)

    def _hold(self, stranger: socket.socket | zmq.Socket[bytes]) -> None:
        self._held.append((time.monotonic() + self._random.uniform(0.0, 5.0), stranger))
