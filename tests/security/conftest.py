"""Communicators with and without a secret, and a stranger who says what it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from rdma_kv import Config, RDMACommunicator
from rdma_kv import _messages as wire

HOST = "127.0.0.1"
LAYERS, BLOCKS, BLOCK_BYTES = 2, 64, 4096
SECRET = "a secret that only the two sides may know"
TCP = Config(transport="tcp", socket_ifname="lo")

Make = Callable[..., RDMACommunicator]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes communicators on memory of their own, and closes them at the end."""
    with ExitStack() as made:

        def make(role: str, config: Config = TCP, port: int = 0) -> RDMACommunicator:
            fill = 1 if role == "prefill" else 0
            caches = [
                [np.full((BLOCKS, BLOCK_BYTES), fill, np.uint8) for _ in range(LAYERS)]
                for _ in range(2)
            ]
            communicator = RDMACommunicator(
                role, -1, port, *caches, BLOCKS, BLOCK_BYTES, config=config
            )
            communicator.test_caches = caches  # type: ignore[attr-defined]
            made.callback(communicator.close)
            return communicator

        yield make


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Config]:
    """Makes a configuration with a shared secret."""

    def secret(text: str = SECRET, config: Config = TCP) -> Config:
        path = tmp_path / f"key-{abs(hash(text))}"
        path.write_text(text)
        path.chmod(0o600)
        return replace(config, auth_key_file=path)

    return secret


class Stranger:
    """A DEALER that follows no rule."""

    def __init__(self, context: zmq.Context[Any], port: int | str) -> None:
        self.line: zmq.Socket[Any] = context.socket(zmq.DEALER)
        self.line.linger = 0
        self.line.connect(f"tcp://{HOST}:{port}")

    def say(self, message: wire.Message | bytes) -> None:
        self.line.send(message if isinstance(message, bytes) else wire.encode(message))

    def hear(self, timeout_s: float = 10.0) -> wire.FromDecode:
        assert self.line.poll(int(timeout_s * 1000)), "no answer"
        return wire.decode_from_decode(self.line.recv())

    def ask(self, message: wire.Message | bytes) -> wire.FromDecode:
        self.say(message)
        return self.hear()

    def greet(self, epoch: int) -> wire.Welcome:
        """Says a good hello."""
        answer = self.ask(good_hello(epoch))
        assert isinstance(answer, wire.Welcome), answer
        return answer


def good_hello(epoch: int, **changes: Any) -> wire.Hello:
    tensors = [(kind, BLOCK_BYTES, BLOCK_BYTES) for kind in (0, 1)]
    fields: dict[str, Any] = {
        "epoch": epoch,
        "role": "prefill",
        "host": wire.Host(boot_id="elsewhere", pid=1),
        "geometry": wire.Geometry(layers=LAYERS, block_count=BLOCKS, tensors=tensors),
        "transports": ["tcp"],
    }
    return wire.Hello(**fields | changes)


@pytest.fixture
def stranger() -> Iterator[Callable[[RDMACommunicator], Stranger]]:
    """Makes strangers that are connected to a decode side."""
    context: zmq.Context[Any] = zmq.Context()
    yield lambda decode: Stranger(context, decode.port)
    context.destroy(linger=0)


def writes(prefill: RDMACommunicator, decode: RDMACommunicator, tag: int = 1) -> bool:
    """Whether a block arrives, and its notice."""
    cache = decode.test_caches[0][0]  # type: ignore[attr-defined]
    cache[2] = 0
    prefill.write_cache_async(HOST, decode.port, [1], [2], None, tag=tag).wait()
    decode.received(tag, 10)
    return bool((cache[2] == 1).all())


def links_of(decode: RDMACommunicator) -> list[Any]:
    return decode._engine.inbound_links()
