"""The frames of src/transport/stream/frames.h, written a second time, from its text."""

from __future__ import annotations

import socket
import struct

HELLO, WELCOME, WRITE, DATA, NOTICE, ABORT, ACK, END, ENDED, REFUSED = range(1, 11)


def frame(kind: int, transfer: int = 0, body: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack("<BBHIQ", kind, 0, 0, len(body) if size is None else size, transfer) + body


def hello(
    link_id: int,
    token: bytes,
    epoch: int,
    *,
    index: int = 0,
    count: int = 1,
    version: int = 1,
    magic: bytes = b"RKVS",
) -> bytes:
    head = struct.pack("<4sHHHH", magic, version, index, count, 0)
    return frame(HELLO, 0, head + struct.pack("<Q16sQ", link_id, token, epoch))


def write(
    transfer: int,
    runs: list[tuple[int, int]],
    *,
    tag: int = 0,
    layers: tuple[int, int] = (0, 1),
    part: int = 0,
    parts: int = 1,
    run_count: int | None = None,
) -> bytes:
    head = struct.pack(
        "<IIIIHHI", tag, *layers, len(runs) if run_count is None else run_count, part, parts, 0
    )
    return frame(WRITE, transfer, head + b"".join(struct.pack("<II", *run) for run in runs))


def read_exactly(stream: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = stream.recv(size - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def read_frame(stream: socket.socket) -> tuple[int, int, bytes]:
    """Kind, transfer and body; EOFError when the other side closed."""
    kind, flags, reserved, size, transfer = struct.unpack("<BBHIQ", read_exactly(stream, 16))
    assert (flags, reserved) == (0, 0)
    return kind, transfer, read_exactly(stream, size)


def is_closed(stream: socket.socket) -> bool:
    """Whether the other side closes within the socket's timeout, whatever it says before."""
    try:
        while stream.recv(4096):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True
