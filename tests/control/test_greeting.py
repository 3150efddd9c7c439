"""Who listens there: told from the first bytes, before any ZeroMQ socket is made."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
import zmq

from rdma_kv._greeting import NotZeroMqError, read_mechanism


@contextlib.contextmanager
def zeromq_listener(**options):
    context = zmq.Context()
    listener = context.socket(zmq.ROUTER)
    listener.linger = 0
    for name, value in options.items():
        setattr(listener, name, value)
    try:
        yield listener.bind_to_random_port("tcp://127.0.0.1")
    finally:
        listener.close()
        context.term()


@contextlib.contextmanager
def listener_that_says(data):
    """Accepts one connection, says that, and hangs up; data None: says nothing and stays."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve():
            line, _ = server.accept()
            with line:
                if data is None:
                    over.wait(10)
                else:
                    line.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_a_socket_without_a_secret_is_told():
    with zeromq_listener() as port:
        assert read_mechanism("127.0.0.1", port, 5) == "NULL"


def test_a_socket_with_a_secret_is_told():
    _, secret = zmq.curve_keypair()

    with zeromq_listener(curve_server=True, curve_secretkey=secret) as port:
        assert [read_mechanism("127.0.0.1", port, 5) for _ in range(20)] == ["CURVE"] * 20


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad\r\n", b"\xff\x00rest of ten."]
)
def test_something_else_is_shown_by_what_it_says(banner):
    with listener_that_says(banner) as port, pytest.raises(NotZeroMqError, match="it began with"):
        read_mechanism("127.0.0.1", port, 5)


def test_who_hangs_up_is_not_zeromq():
    with listener_that_says(b"") as port, pytest.raises(NotZeroMqError, match="it hung up"):
        read_mechanism("127.0.0.1", port, 5)


def test_silence_ends_with_the_time_allowed():
    with listener_that_says(None) as port, pytest.raises(TimeoutError):
        read_mechanism("127.0.0.1", port, 0.2)


def test_nobody_there_is_a_refused_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        read_mechanism("127.0.0.1", port, 5)
