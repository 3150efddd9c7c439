"""A peer that is not there, says nothing, or speaks something else: a reason, and in time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from rdma_kv import HandshakeError
from support.cache import Shape
from support.patience import scaled
from support.side import HERE
from support.strangers import GREETING, READY, strangers
from support.wire import Wire

PATIENCE_S = 2.0  # what connect() is given
pytestmark = pytest.mark.one_transport


@contextlib.contextmanager
def refused_within(seconds: float) -> Iterator[pytest.ExceptionInfo[HandshakeError]]:
    started = time.monotonic()
    with pytest.raises(HandshakeError) as refusal:
        yield refusal
    assert time.monotonic() - started < seconds


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return str(probe.getsockname()[1])


def test_nobody_listens(wire: Wire):
    port = free_port()
    prefill = wire.prefill(Shape())

    with refused_within(scaled(PATIENCE_S + 2)) as refusal:
        prefill.connect((HERE, port), PATIENCE_S)

    assert f"{HERE}:{port}" in str(refusal.value)
    assert not prefill.is_connected((HERE, port))


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A listening socket; `answer` is called with each connection. Yields the port."""
    with socket.socket() as listening, contextlib.ExitStack() as open_:
        listening.bind((HERE, 0))
        listening.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    open_.enter_context(connection)
                    answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield str(listening.getsockname()[1])
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        thread.join(scaled(5))


def speak_http(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "answer", [lambda connection: None, speak_http], ids=["black-hole", "http"]
)
def test_something_listens_that_is_no_decode_side(wire: Wire, answer):
    prefill = wire.prefill(Shape())

    with server(answer) as port, refused_within(scaled(PATIENCE_S + 2)) as refusal:
        prefill.connect((HERE, port), PATIENCE_S)

    assert f"{HERE}:{port}" in str(refusal.value)


@contextlib.contextmanager
def zmq_server(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A ROUTER that answers each message with `answer(message)`. Yields the port."""
    is_over = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port(f"tcp://{HERE}")

        def serve() -> None:
            while not is_over.is_set():
                if router.poll(20):
                    sender, *parts = router.recv_multipart()
                    router.send_multipart([sender, answer(parts[-1])])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield str(port)
        finally:
            is_over.set()
            thread.join()


def future_version(message: bytes) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(message), "version": 999, "new": 1})


def test_a_peer_of_a_later_version_is_named_with_both_versions(wire: Wire):
    prefill = wire.prefill(Shape())

    with zmq_server(future_version) as port, refused_within(scaled(PATIENCE_S + 2)) as refusal:
        prefill.connect((HERE, port), PATIENCE_S)

    assert "999" in str(refusal.value)
    assert "version" in str(refusal.value)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\xc1", b"\x81\xa1a", b"\xff" * 300, msgspec.msgpack.encode({"type": "welcome"})],
    ids=["empty", "no-msgpack", "cut", "ints", "welcome-of-nothing"],
)
def test_a_peer_that_answers_nonsense(wire: Wire, nonsense: bytes):
    prefill = wire.prefill(Shape())

    with (
        zmq_server(lambda message: nonsense) as port,
        refused_within(scaled(PATIENCE_S + 2)) as refusal,
    ):
        prefill.connect((HERE, port), PATIENCE_S)

    assert f"{HERE}:{port}" in str(refusal.value)


@pytest.mark.parametrize("nonsense", [b"", b"\xc1", b"\xff" * 300, b"x" * 5_000_000])
def test_a_decode_side_outlives_nonsense(wire: Wire, nonsense: bytes):
    prefill, decode = wire.pair()
    with strangers(decode.address, 5) as crowd:
        for stranger in crowd:
            stranger.talk([GREETING, READY])
            for _ in range(4):
                stranger.say(b"\x02" + struct.pack(">Q", len(nonsense)) + nonsense)
        prefill.write(decode.address, [1], [2], tag=1)
        decode.received(1, 10)
        late = wire.prefill(Shape())

        assert late.connect(decode.address)


def test_a_hanging_peer_delays_nobody(wire: Wire):
    prefill = wire.prefill(Shape())
    decode = wire.decode(Shape())

    with server(lambda connection: None) as port:
        stuck = prefill.start("connect", (HERE, port), 3)
        assert prefill.connect(decode.address)
        prefill.write(decode.address, [1], [2], tag=1)
        decode.received(1, 10)

        assert not stuck.done()
        with pytest.raises(HandshakeError):
            stuck.result(scaled(20))


def test_a_prefill_side_is_no_peer(wire: Wire):
    prefill, decode = wire.prefill(Shape()), wire.decode(Shape())

    with pytest.raises(Exception, match=r"decode|prefill"):
        decode.connect(prefill.address)


@pytest.mark.parametrize("address", [("", "5"), ("127.0.0.1", "x"), ("127.0.0.1", "0"), (1, 2)])
def test_an_address_that_cannot_be_is_refused(wire: Wire, address):
    prefill = wire.prefill(Shape())

    with refused_within_or_value_error(scaled(PATIENCE_S + 2)):
        prefill.comm.connect(*address, timeout_s=scaled(PATIENCE_S))


@contextlib.contextmanager
def refused_within_or_value_error(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises((HandshakeError, ValueError, TypeError)):
        yield
    assert time.monotonic() - started < seconds
