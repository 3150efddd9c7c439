"""Prefill's end of a connection after the handshake, on the control thread."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._control import GOODBYE_LINGER_MS, ControlLoop, heartbeat_period_s
from rdma_kv._errors import NotQuiesced

logger = logging.getLogger("rdma_kv")


# Then others get their turn: one peer that never stops talking must not silence the rest.
_MOST_MESSAGES_AT_ONCE = 64


class Heartbeat:
    """Pings one decode peer, and tells the core when that is gone.

    Made by the thread that connected; from :meth:`start` on its socket is the control thread's.
    """

    def __init__(
        self,
        loop: ControlLoop,
        socket: zmq.Socket[Any],
        peer: _core.Peer,
        epoch: int,
        timeout_s: float,
        patience_s: float,
    ) -> None:
        """This side gives decode up after `timeout_s` of silence; decode has `patience_s`."""
        self._timeout_s = timeout_s
        self.period_s = heartbeat_period_s(min(timeout_s, patience_s))
        self._loop = loop
        self._socket = socket
        self._peer = peer
        self._epoch = epoch
        self._sequence = itertools.count(1)
        self._last_heard = time.monotonic()
        self._is_open = True
        self._farewell: str | None = None  # said, while writes were under way
        self._questions: dict[int, _Question] = {}

    def start(self, early: Sequence[wire.Revoke] = ()) -> None:
        """Hands the socket over, and what it had received already."""
        self._loop.post(lambda: self._begin(early))

    def stop(self, reason: str) -> None:
        """Says goodbye and closes the socket, soon. Any thread; idempotent."""
        if not self._loop.post(lambda: self._end(reason)):
            self._end(reason)  # the thread has ended: nobody else has the socket now

    def ask(
        self, layer: int, tensor: int, blocks: list[int], checksums: list[int], timeout_s: float
    ) -> wire.Verified | wire.Refused | None:
        """Has decode compare checksums; None when its answer did not come in time. Any thread."""
        question = _Question()

        def send() -> None:
            if not self._is_open:
                question.answered.set()
                return
            sequence = next(self._sequence)
            self._questions[sequence] = question
            question.sequence = sequence
            self._send(
                wire.Verify(
                    epoch=self._epoch,
                    peer_epoch=self._peer.epoch,
                    sequence=sequence,
                    layer=layer,
                    tensor=tensor,
                    blocks=blocks,
                    checksums=checksums,
                )
            )

        if self._loop.post(send):
            question.answered.wait(timeout_s)
        self._loop.post(lambda: self._forget(question))
        return question.answer

    # ---- the control thread

    def on_readable(self) -> None:
        """Takes what waits, fairly: at most so many before others get their turn."""
        for _ in range(_MOST_MESSAGES_AT_ONCE):
            if not self._is_open:
                return
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = wire.decode_from_decode(data)
            except wire.MalformedError as error:
                logger.debug("a message from %s was ignored: %s", self._peer.name, error)
                continue
            self._on_message(message)

    def tick(self, now: float, late_s: float) -> None:
        """Pings, or gives the peer up."""
        if not self._peer.alive:
            self._end("the link is down")
            return
        if self._farewell is not None:
            self._lose(self._farewell, level=logging.INFO)
            return
        self._last_heard += late_s
        silent_s = now - self._last_heard
        if silent_s > self._timeout_s - self.period_s:  # the next look would be too late
            self._lose(
                f"no heartbeat from it for {silent_s:.1f} s "
                f"(KVCACHE_PEER_TIMEOUT_S={self._timeout_s:g}): is it stopped, overloaded or cut "
                "off? Connect again once it answers"
            )
            return
        self._ping()

    def _ping(self) -> None:
        self._send(
            wire.Ping(epoch=self._epoch, peer_epoch=self._peer.epoch, sequence=next(self._sequence))
        )

    def _begin(self, early: Sequence[wire.Revoke]) -> None:
        self._loop.watch(self._socket, self.on_readable)
        self._loop.start_ticking(self)
        self._ping()  # so that decode knows that connecting went well
        for message in early:
            self._on_revoke(message)

    def _on_message(self, message: wire.FromDecode) -> None:
        if isinstance(message, wire.Refused) and message.code == wire.STALE_EPOCH:
            self._lose(
                "it restarted or ended this connection: it does not know this epoch any more"
            )
            return
        if message.epoch != self._peer.epoch:
            logger.debug("a late message of another epoch from %s", self._peer.name)
            return
        self._last_heard = time.monotonic()
        if isinstance(message, wire.Bye):
            reason = message.reason or "no reason given"
            why = f"it said goodbye: {reason}; connect again once it is back"
            if self._farewell is None and self._peer.counters()["queued"]:
                # Confirmations that it sent before may still be on their way, on the link.
                self._farewell = why
            else:
                self._lose(why, level=logging.INFO)
        elif isinstance(message, wire.Revoke):
            self._on_revoke(message)
        elif isinstance(message, wire.Verified):
            if question := self._questions.pop(message.sequence, None):
                question.settle(message)
        elif isinstance(message, wire.Refused):
            for question in self._questions.values():  # refusals carry no sequence
                question.settle(message)
            self._questions.clear()

    def _on_revoke(self, message: wire.Revoke) -> None:
        if message.lifted:
            self._peer.allow(message.tag)
            stopped = []
        else:
            stopped = self._peer.revoke(message.tag)
            logger.info("%s revoked tag %d", self._peer.name, message.tag)
        self._answer_when_ended(message, stopped)

    def _answer_when_ended(self, asked: wire.Revoke, stopped: list[_core.Transfer]) -> None:
        if not self._is_open:
            return
        moving = next((transfer for transfer in stopped if not transfer.done()), None)
        if moving is None:
            if not self._peer.alive:
                # Decode may have read less of that link than was sent: the goodbye ends it there.
                self._end("the link is down")
                return
            # Without an answer decode ends the link, which then is the only way.
            may_land = any(isinstance(transfer.error(), NotQuiesced) for transfer in stopped)
            may_land |= any(tag == asked.tag for tag, *_ in self._peer.unquiesced())
            if not may_land:
                self._send(
                    wire.Revoked(
                        epoch=self._epoch, peer_epoch=self._peer.epoch, sequence=asked.sequence
                    )
                )
            return
        ended = os.dup(moving.fileno())  # another revocation may watch the same transfer

        def go_on() -> None:
            self._loop.forget(ended)
            os.close(ended)
            self._answer_when_ended(asked, stopped)

        self._loop.watch(ended, go_on)

    def _lose(self, why: str, level: int = logging.WARNING) -> None:
        logger.log(level, "lost %s: %s", self._peer.name, why)
        self._peer.lose(why)
        self._end(why)

    def _end(self, reason: str) -> None:
        if not self._is_open:
            return
        self._is_open = False
        for question in self._questions.values():  # nobody will answer: let them look why
            question.answered.set()
        self._loop.stop_ticking(self)
        self._loop.forget(self._socket)
        self._send(wire.Bye(epoch=self._epoch, reason=wire.sentence(reason)))
        self._socket.close(linger=GOODBYE_LINGER_MS)

    def _send(self, message: wire.Message) -> None:
        try:
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:  # a peer that reads nothing is given up by tick()
            logger.debug("%s takes no message", self._peer.name)

    def _forget(self, question: _Question) -> None:
        self._questions.pop(question.sequence, None)


class _Question:
    """One checksum request and its answer."""

    def __init__(self) -> None:
        self.sequence = 0
        self.answered = threading.Event()
        self.answer: wire.Verified | wire.Refused | None = None

    def settle(self, answer: wire.Verified | wire.Refused) -> None:
        """Wakes who asked."""
        self.answer = answer
        self.answered.set()
