"""Communicators of one process, and peers that break the rules."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import zmq

from rdma_kv import RDMACommunicator
from rdma_kv import _messages as wire
from support.one_process import BLOCK_BYTES, BLOCKS, HOST, LAYERS, LOOPBACK, cache


@pytest.fixture
def make():
    """Makes communicators, and closes them at the end."""
    made = []

    def make(role, *, port=0, config=LOOPBACK, keys=None, values=None, **more):
        keys = cache() if keys is None else keys
        values = cache() if values is None else values
        block_bytes = keys[0].shape[1]
        made.append(
            RDMACommunicator(
                role, -1, port, keys, values, BLOCKS, block_bytes, config=config, **more
            )
        )
        return made[-1]

    yield make
    for communicator in made:
        communicator.close()


@pytest.fixture
def secret(tmp_path):
    """Makes a configuration with a secret."""

    def secret(text):
        path = tmp_path / text
        path.write_text(text * 20)
        path.chmod(0o600)
        return replace(LOOPBACK, auth_key_file=path)

    return secret


@pytest.fixture
def stranger():
    """A socket that says what it likes to a decode side."""
    context = zmq.Context()
    line = context.socket(zmq.DEALER)
    line.linger = 0

    class Stranger:
        def connect(self, decode):
            line.connect(f"tcp://{HOST}:{decode.port}")
            return self

        def say(self, message):
            line.send(message if isinstance(message, bytes) else wire.encode(message))

        def ask(self, message):
            self.say(message)
            assert line.poll(5000), "no answer"
            return wire.decode_from_decode(line.recv())

        def hello(self, **changes):
            fields = {
                "epoch": 5,
                "role": "prefill",
                "host": wire.Host(boot_id="elsewhere", pid=1),
                "geometry": wire.Geometry(
                    layers=LAYERS,
                    block_count=BLOCKS,
                    tensors=[(0, BLOCK_BYTES, BLOCK_BYTES), (1, BLOCK_BYTES, BLOCK_BYTES)],
                ),
                "transports": ["tcp"],
            }
            return self.ask(wire.Hello(**fields | changes))

    yield Stranger()
    line.close()
    context.term()


@pytest.fixture
def impostor():
    """A decode side that answers the first message with given bytes."""
    context = zmq.Context()
    line = context.socket(zmq.ROUTER)
    line.linger = 0
    port = line.bind_to_random_port(f"tcp://{HOST}")
    answers = []

    def serve():
        if line.poll(5000):
            identity, _ = line.recv_multipart()
            for answer in answers:
                line.send_multipart([identity, answer])
            line.poll(5000)  # the goodbye, or the end of the test

    thread = threading.Thread(target=serve)

    def answer_with(*data):
        answers.extend(data)
        thread.start()
        return port

    yield answer_with
    if thread.ident:
        thread.join()
    line.close()
    context.term()
