#!/usr/bin/env python3
"""Fuzzes what decode does with control messages; run by `scripts/fuzz sessions`.

The sessions are the real ones on a real engine; the socket and the loop are stubs. An input is a
msgpack array: which decode side, then steps, each [who, what]: what one of four prefill sides
sends. A map is sent as a message, bytes as they are, a number lets time pass: an odd one an hour.
What a peer learns in the conversation is written as "$epoch", "$link0", "$link1", ...

Whatever comes: no exception leaves the handler, each message has at most one answer, which the
other side's parser takes; a message of another epoch changes nothing; the engine knows no link
that no session has, and forgets all of them in the end.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import atheris
import msgspec
import numpy as np
import zmq

INSTRUMENTED = ["_messages", "_sessions", "_offers", "_checksums", "_ranks", "_side"]
with atheris.instrument_imports(include=[f"rdma_kv.{name}" for name in INSTRUMENTED]):
    from examples import FROM_PREFILL
    from trees import mutator

    from rdma_kv import _core
    from rdma_kv import _messages as wire
    from rdma_kv._config import Config
    from rdma_kv._sessions import Sessions
    from rdma_kv._side import Side

PEERS = 4
MOST_STEPS = 64
MOST_LINKS = 16
HOST = "127.0.0.1"

# (tensors of a block, tp_size, tp_rank, whether the rank is declared) of the decode sides; the last
# one runs without KVCACHE_VERIFY.
SHAPES: list[tuple[list[tuple[int, int, int]], int, int, bool]] = [
    ([(0, 64, 64), (1, 64, 64)], 1, 0, True),
    ([(0, 32, 48), (1, 32, 32), (2, 4, 4)], 2, 1, True),
    ([(0, 40, 40)], 1, 0, False),
]


class Frame:
    """As of zmq."""

    def __init__(self, data: bytes) -> None:
        self.bytes = data

    def get(self, name: str) -> str:
        return HOST


class Socket:
    """What one handler reads and answers."""

    def __init__(self) -> None:
        self.waiting: list[list[Frame]] = []
        self.answers: list[tuple[bytes, bytes]] = []

    def recv_multipart(self, flags: int = 0, copy: bool = True) -> list[Frame]:
        if not self.waiting:
            raise zmq.Again
        return self.waiting.pop(0)

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        self.answers.append((frames[0], frames[1]))

    def close(self, linger: int | None = None) -> None: ...


class Loop:
    """A control loop that never runs."""

    def start_ticking(self, what: Any) -> None: ...
    def stop_ticking(self, what: Any) -> None: ...
    def watch(self, source: Any, handler: Any) -> None: ...
    def forget(self, source: Any) -> None: ...
    def post(self, task: Callable[[], None]) -> bool:
        task()
        return True


def make_side(
    tensors: list[tuple[int, int, int]], tp_size: int, tp_rank: int, is_rank_declared: bool
) -> tuple[Side, int, Any]:
    layers, blocks = 2, 16
    cache = [np.zeros(blocks * stride, np.uint8) for _ in range(layers) for _, _, stride in tensors]
    geometry = _core.Geometry(layers, blocks, tensors, "", tp_size, tp_rank)
    bases = [region.ctypes.data for region in cache]
    engine = _core.Engine(_core.Layout(geometry, bases, [-1] * len(bases)))
    config = Config(verify=is_rank_declared)
    host = wire.Host(boot_id="b007", pid=4242)
    side = Side(engine, config, host, None, [], "no NIC in this test", is_rank_declared)
    return side, engine.listen(HOST, 0), cache


SIDES = [make_side(*shape) for shape in SHAPES]


class Conversation:
    """Sessions of one decode side, and what they must have kept of what was said."""

    def __init__(self, side: Side, data_port: int) -> None:
        self.side = side
        self.socket = Socket()
        self.sessions = Sessions(Loop(), self.socket, side, data_port)  # type: ignore[arg-type]
        self.epochs: dict[int, int] = {}  # of who said hello
        self.links: dict[int, list[int]] = {who: [] for who in range(PEERS)}  # ever opened

    def wait(self, is_long: bool) -> None:
        self.sessions.on_links_ended()
        self.sessions.tick(time.monotonic() + (3600 if is_long else 0.5), 0.0)
        present = {session.identity[0] for session in self.sessions.all()}
        assert not (is_long and present)
        assert present <= set(self.epochs)
        for who in set(self.epochs) - present:
            # Before its time only who has no link any more.
            assert is_long or not self.known_links() & set(self.links[who])
            self.forget(who)

    def step(self, who: int, what: Any) -> None:
        if isinstance(what, int):
            self.wait(is_long=bool(what % 2))
            return
        data = what if isinstance(what, bytes) else self.encode(who, what)
        if data is not None:
            self.say(who, data)

    def encode(self, who: int, message: Any) -> bytes | None:
        try:
            return msgspec.msgpack.encode(self.filled_in(who, message))
        except (OverflowError, RecursionError):
            return None

    def filled_in(self, who: int, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.filled_in(who, item) for key, item in value.items()}
        if value == "$epoch":
            return self.side.epoch
        if isinstance(value, str) and value.startswith("$link") and self.links[who]:
            return self.links[who][len(value) % len(self.links[who])]
        return value

    def say(self, who: int, data: bytes) -> None:
        identity = bytes([who])
        links_before = self.known_links()
        self.socket.answers.clear()
        self.socket.waiting.append([Frame(identity), Frame(data)])

        self.sessions.on_readable()

        assert len(self.socket.answers) <= 1, "one message, two answers"
        answer = None
        for to, answered in self.socket.answers:
            assert to == identity
            answer = wire.decode_from_decode(answered)
        try:
            message = wire.decode_from_prefill(data)
        except wire.MalformedError:
            assert isinstance(answer, wire.Refused)
            assert self.known_links() == links_before
            return
        if isinstance(message, wire.Hello):
            self.check_hello(who, message, answer)
        elif self.is_stale(who, message):
            assert self.known_links() == links_before
            if isinstance(message, wire.Bye):
                assert answer is None
            else:
                assert isinstance(answer, wire.Refused)
                assert answer.code == wire.STALE_EPOCH
        else:
            self.check_answer(who, message, answer)
        assert self.known_links() <= {link for who in self.epochs for link in self.links[who]}
        assert len(self.sessions.names()) <= len(self.epochs)

    def is_stale(self, who: int, message: Any) -> bool:
        if self.epochs.get(who) != message.epoch:
            return True
        return getattr(message, "peer_epoch", self.side.epoch) != self.side.epoch

    def check_hello(self, who: int, hello: wire.Hello, answer: Any) -> None:
        self.forget(who)
        if isinstance(answer, wire.Welcome):
            self.epochs[who] = hello.epoch
            assert hello.role == "prefill"
            assert hello.geometry.layers == self.side.geometry.layers
            assert len(hello.geometry.tensors) == len(self.side.geometry.tensors)
        else:
            assert isinstance(answer, wire.Refused)

    def check_answer(self, who: int, message: Any, answer: Any) -> None:
        match message:
            case wire.Ping():
                assert isinstance(answer, wire.Pong)
                assert answer.sequence == message.sequence
            case wire.Open() if isinstance(answer, wire.Opened):
                self.links[who].append(answer.link_id)
                assert answer.link_id in self.known_links()
                assert len(self.known_links() & set(self.links[who])) <= MOST_LINKS
            case wire.CloseLink():
                assert answer is None
                if message.link_id in self.links[who]:
                    assert message.link_id not in self.known_links()
            case wire.Verify() if isinstance(answer, wire.Verified):
                assert answer.sequence == message.sequence
                assert set(answer.bad_blocks) <= set(message.blocks)
                assert max(message.blocks, default=0) < self.side.geometry.block_count
            case wire.Revoked():
                assert answer is None
            case wire.Bye():
                assert answer is None
                self.forget(who)
            case _:
                assert isinstance(answer, wire.Refused)

    def forget(self, who: int) -> None:
        self.epochs.pop(who, None)
        assert not self.known_links() & set(self.links[who]), "a session left a link behind"
        self.links[who] = []

    def known_links(self) -> set[int]:
        return {link[0] for link in self.side.engine.inbound_links()}

    def close(self) -> None:
        self.sessions.close()
        assert not self.known_links()


def test_one_input(data: bytes) -> None:
    try:
        steps = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, TypeError):
        steps = [0, [0, data]]
    if not isinstance(steps, list) or not steps or not isinstance(steps[0], int):
        steps = [0, [0, data]]
    side, data_port, _ = SIDES[steps[0] % len(SIDES)]
    talk = Conversation(side, data_port)
    for step in steps[1:MOST_STEPS]:
        if isinstance(step, list) and len(step) == 2 and isinstance(step[0], int):
            talk.step(step[0] % PEERS, step[1])
    talk.close()
    _core.drain_log()


def as_map(message: wire.Message) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    if "peer_epoch" in plain:
        plain["peer_epoch"] = "$epoch"
    if "link_id" in plain:
        plain["link_id"] = "$link0"
    return plain


def hello_to(shape: int) -> dict[str, Any]:
    """A hello that this decode side takes."""
    tensors, tp_size, tp_rank, _ = SHAPES[shape]
    geometry = wire.Geometry(
        layers=2, block_count=9, tensors=tensors, tp_size=tp_size, tp_rank=tp_rank
    )
    host = wire.Host(boot_id="elsewhere", pid=77)
    return as_map(
        wire.Hello(epoch=7, role="prefill", host=host, geometry=geometry, transports=["tcp"])
    )


def conversations() -> list[Any]:
    """Whole and in order, one for each decode side; and one that wants too many links."""
    found: list[Any] = []
    for shape in range(len(SHAPES)):
        talk: list[Any] = [shape, [0, hello_to(shape)]]
        for transport in ("tcp", "cma", "loopback", "rdma"):
            request = wire.Open(epoch=7, peer_epoch=1, transport=transport, streams=2)
            talk.append([0, as_map(request)])
        talk += [[0, as_map(message)] for message in FROM_PREFILL[1:]]
        found.append(talk)
    request = wire.Open(epoch=7, peer_epoch=1, transport="tcp", streams=64)
    found.append([0, [0, hello_to(0)], *[[0, as_map(request)]] * (MOST_LINKS + 1)])
    return found


def main() -> None:
    logging.disable()
    strangers = conversations() + [[0, [1, as_map(message)]] for message in FROM_PREFILL]
    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutator(strangers))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
