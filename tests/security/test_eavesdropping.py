"""What somebody on the network learns of a decode side that has a secret."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec
import pytest
import zmq

from rdma_kv import Config
from rdma_kv import _messages as wire
from rdma_kv._auth import derive_keys
from tests.security.conftest import HOST, TCP, good_hello, links_of, writes
from tests.security.recorder import recording

# A greeting, and at most a command that says how it failed; no message of ours is that short.
GREETING_BYTES = 64
MOST_OF_A_REFUSAL = 300


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[wire.Message]:
    """Every message that either side encodes, in this process."""
    kept: list[wire.Message] = []
    encode = wire.encode

    def keep(message: wire.Message) -> bytes:
        kept.append(message)
        return encode(message)

    monkeypatch.setattr(wire, "encode", keep)
    return kept


def secrets_in(spoken: list[wire.Message]) -> dict[str, bytes]:
    """What a stranger must not learn, as it looks in a message."""
    found: dict[str, bytes] = {}
    for message in spoken:
        if isinstance(message, wire.Welcome):
            found["data port"] = b"data_port" + msgspec.msgpack.encode(message.data_port)
            found |= {f"base {i}": msgspec.msgpack.encode(b) for i, b in enumerate(message.bases)}
            found["epoch of decode"] = struct.pack(">Q", message.epoch)
        elif isinstance(message, wire.Opened):
            found["token"] = message.token
            found["link"] = struct.pack(">Q", message.link_id)
        elif isinstance(message, wire.Hello):
            found["epoch of prefill"] = struct.pack(">Q", message.epoch)
    found["magic"] = wire.MAGIC.encode()
    return found


def seen(config: Config, make: Any, spoken: list[wire.Message]) -> dict[str, bool]:
    """Which of the secrets of a whole session are in the bytes of its control connection."""
    decode, prefill = make("decode", config), make("prefill", config)
    with recording(decode.port) as recorder:
        assert prefill.connect(HOST, recorder.port)
        prefill.write_cache(HOST, recorder.port, [1], [2], 0)
        prefill.close()
        captured = recorder.to_server + recorder.to_client
    assert len(captured) > 500
    return {name: secret in captured for name, secret in secrets_in(spoken).items()}


def test_with_a_secret_none_of_it_crosses_the_network_in_clear(make, secret, spoken):
    found = seen(secret(), make, spoken)

    assert {"token", "base 0", "data port", "link", "epoch of decode"} <= found.keys()
    assert not any(found.values()), found


def test_the_listener_of_this_test_would_have_seen_them(make, spoken):
    found = seen(TCP, make, spoken)

    assert all(found.values()), found


def curve_client(context: zmq.Context[Any], text: bytes) -> zmq.Socket[Any]:
    """Knows a secret, though not decode's, but does know decode's public key."""
    line: zmq.Socket[Any] = context.socket(zmq.DEALER)
    line.curve_serverkey = derive_keys(text).listening.public
    line.curve_publickey, line.curve_secretkey = zmq.curve_keypair()
    return line


@pytest.mark.parametrize("client", ["no secret", "another secret", "the public key only", "bytes"])
def test_who_has_no_secret_is_told_nothing(make, secret, spoken, client):
    text = "the secret of decode, long enough"
    decode = make("decode", secret(text))
    context: zmq.Context[Any] = zmq.Context()
    with recording(decode.port) as recorder:
        if client == "bytes":
            with socket.create_connection((HOST, recorder.port), timeout=5) as line:
                line.sendall(wire.encode(good_hello(5)) * 10)
                assert not line.recv(1 << 16).startswith(b"\x8a")
        else:
            line = {
                "no secret": lambda: context.socket(zmq.DEALER),
                "another secret": lambda: curve_client(context, b"another secret of enough bytes"),
                "the public key only": lambda: curve_client(context, text.encode()),
            }[client]()
            line.linger = 0
            line.reconnect_ivl = -1
            line.connect(f"tcp://{HOST}:{recorder.port}")
            for message in (good_hello(5), wire.Open(epoch=5, peer_epoch=1, transport="tcp")):
                line.send(wire.encode(message))
            assert not line.poll(1000)
        context.destroy(linger=0)
        answers = [bytes(answer) for _, answer in recorder.said]

    assert answers
    assert all(len(answer) <= GREETING_BYTES + MOST_OF_A_REFUSAL for answer in answers)
    told = b"".join(answers)
    assert struct.pack(">Q", decode._engine.epoch) not in told
    for base, _, _ in decode._engine.layout.regions:
        assert msgspec.msgpack.encode(base) not in told
    assert wire.MAGIC.encode() not in told
    assert not any(isinstance(message, (wire.Welcome, wire.Opened)) for message in spoken)
    assert links_of(decode) == []
    prefill = make("prefill", secret(text))
    assert prefill.connect(HOST, decode.port)
    assert writes(prefill, decode)


def test_a_recorded_session_means_nothing_to_the_same_decode(make, secret):
    config = secret()
    decode, prefill = make("decode", config), make("prefill", config)
    with recording(decode.port) as recorder:
        assert prefill.connect(HOST, recorder.port)
        prefill.write_cache(HOST, recorder.port, [1], [2], 0)
        # The last one: the others only looked which mechanism decode speaks.
        recorded = max((bytes(client) for client, _ in recorder.said), key=len)
        before = decode._parts.connected_names(), links_of(decode)
        for cut in (len(recorded), len(recorded) - 1, 64, 300):
            with socket.create_connection((HOST, int(decode.port)), timeout=5) as line:
                line.sendall(recorded[:cut])
                line.settimeout(0.5)
                answer = read_all(line)

            assert len(answer) < 1000  # its half of CurveZMQ's handshake, with keys of its own
            assert (decode._parts.connected_names(), links_of(decode)) == before
        prefill.write_cache(HOST, recorder.port, [1], [2], 0)


def read_all(line: socket.socket) -> bytes:
    got = b""
    try:
        while more := line.recv(65536):
            got += more
    except (TimeoutError, ConnectionResetError):
        pass
    return got
