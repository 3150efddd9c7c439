"""Where prefill writes by cma is not for the peer to say alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import zmq

from rdma_kv import TransportUnavailable
from rdma_kv import _messages as wire
from support.cache import Shape
from support.peer import PeerProcess
from support.wire import Wire

HOST = "127.0.0.1"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def sides() -> Iterator[Wire]:
    """Communicators over cma; decode sides live in a process of their own."""
    with PeerProcess() as process, Wire("cma", lambda: process) as made:
        yield made


@contextmanager
def between(port: str, change: Change) -> Iterator[str]:
    """Somebody who passes all messages on, and changes the welcome. Yields his port."""
    is_over = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as near:
        far = context.socket(zmq.DEALER)
        near.linger = far.linger = 0
        far.connect(f"tcp://{HOST}:{port}")
        mine = near.bind_to_random_port(f"tcp://{HOST}")

        def serve() -> None:
            poller = zmq.Poller()
            poller.register(near, zmq.POLLIN)
            poller.register(far, zmq.POLLIN)
            who = b""
            while not is_over.is_set():
                for socket, _ in poller.poll(20):
                    if socket is near:
                        who, message = near.recv_multipart()
                        far.send(message)
                        continue
                    fields = msgspec.msgpack.decode(far.recv())
                    if fields["type"] == "welcome":
                        change(fields)
                    near.send_multipart([who, msgspec.msgpack.encode(fields)])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(mine)
        finally:
            is_over.set()
            thread.join()
            far.close()


def other_bases(welcome: dict[str, Any]) -> None:
    welcome["bases"] = [base + 4096 for base in welcome["bases"]]


def wider_strides(welcome: dict[str, Any]) -> None:
    for tensor in welcome["geometry"]["tensors"]:
        tensor[2] += 4096


def more_blocks(welcome: dict[str, Any]) -> None:
    welcome["geometry"]["block_count"] += 1_000_000


def another_life(welcome: dict[str, Any]) -> None:
    welcome["epoch"] += 1


def other_nonce_at_its_place(welcome: dict[str, Any]) -> None:
    """What a liar finds at a known place of its victim: the head of the image of the program."""
    welcome["bases"][0] += 1
    welcome["offers"]["cma"] |= {"probe_address": 0x400000, "probe_nonce": b"\x7fELF" + bytes(12)}


LIES = [other_bases, wider_strides, more_blocks, another_life, other_nonce_at_its_place]


def test_who_only_listens_changes_nothing(sides: Wire):
    decode, prefill = sides.decode(Shape()), sides.prefill(Shape())

    with between(decode.address[1], lambda welcome: None) as port:
        assert prefill.connect((HOST, port))
        prefill.write((HOST, port), [1], [2], tag=3)

    decode.received(3, 10)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_where_to_write_is_found_out(sides: Wire, lie: Change):
    decode, prefill = sides.decode(Shape()), sides.prefill(Shape())
    before = decode.digests()

    with between(decode.address[1], lie) as port:
        with pytest.raises(TransportUnavailable, match=r"nonce|process_vm_readv|epoch"):
            prefill.connect((HOST, port))

    assert decode.digests() == before


def test_the_nonce_stands_for_every_number_of_the_welcome():
    from rdma_kv._probe import nonce_for

    shape = wire.Geometry(layers=1, block_count=1, tensors=[(0, 1, 1)])
    other = wire.Geometry(layers=1, block_count=2, tensors=[(0, 1, 1)])
    one = {
        nonce_for(1, 2, shape, [3, 4]),
        nonce_for(2, 2, shape, [3, 4]),
        nonce_for(1, 1, shape, [3, 4]),
        nonce_for(1, 2, other, [3, 4]),
        nonce_for(1, 2, shape, [3, 5]),
        nonce_for(1, 2, shape, [4, 3]),
        nonce_for(1, 2, shape, [3]),
    }

    assert len(one) == 7
    assert {len(nonce) for nonce in one} == {16}
