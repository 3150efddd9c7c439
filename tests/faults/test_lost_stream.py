"""cma's stream breaks off although both processes live: then only the sender knows what it does."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

import pytest

from support.cache import Shape
from support.patience import eventually
from support.peer import PeerProcess
from support.wire import Wire

SHAPE = Shape(layers=1, blocks=16, block_bytes=4096)
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes; linux/filter.h


@pytest.fixture
def cma() -> Wire:
    with Wire("cma", PeerProcess) as made:
        yield made


def streams_of(port: int) -> list[socket.socket]:
    """The connected sockets of this process whose own port this is."""
    found = {}  # by the other end: a duplicate may get a number that is still to be looked at
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            each = socket.socket(fileno=os.dup(int(entry.name)))
            if each.family == socket.AF_INET and each.getsockname()[1] == port:
                found[each.getpeername()] = each
        except OSError:
            continue
    return list(found.values())


def break_off(stream: socket.socket) -> None:
    """Nothing arrives there any more, and the kernel finds out within seconds."""
    program = ctypes.create_string_buffer(DROP_ALL)
    stream.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
    )
    for option in (socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL, socket.TCP_KEEPIDLE):
        stream.setsockopt(socket.IPPROTO_TCP, option, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    stream.close()


@pytest.mark.two_processes
@pytest.mark.parametrize("settled_by", ["the end of the sender", "the next write"])
def test_a_link_whose_stream_timed_out_is_listed_until_its_sender_has_stopped(
    cma: Wire, own_process: PeerProcess, settled_by: str
):
    decode = cma.decode_here(SHAPE)
    prefill = cma.prefill_in(own_process, SHAPE)
    assert prefill.connect(decode.address)
    prefill.write(decode.address, [1], [2])
    [name] = decode.peer_names()
    own_process.pause()  # or it would connect anew at once
    [stream] = streams_of(decode.comm._parts._listening.sessions._data_port)

    break_off(stream)

    eventually(lambda: decode.unquiesced() != [], 15, "the stream has timed out")
    assert decode.unquiesced()[0][0] == name
    if settled_by == "the next write":
        own_process.resume()
        prefill.write(decode.address, [1], [3])
    else:
        own_process.kill()
    eventually(lambda: decode.unquiesced() == [], 10, "it is settled")
