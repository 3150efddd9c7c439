"""Somebody who floods a port at a known rate, or only burns as much processor time."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import zmq

from rdma_kv.cli.local import HOST

NICENESS = 19
_BATCH_S = 0.01
# Processor time of the control that touches nobody, as a share of one core: about what a flood of
# the usual rate costs sender and receiver together.
BURNED_SHARE = 0.15


def run(pipe: Connection, kind: str, port: int, rate: float) -> None:
    """Begins at once; answers whatever it is sent with how often it has struck."""
    os.nice(NICENESS)
    strike = {"control": _messages(port), "data": _connections(port), "burn": _burn}[kind]
    struck = 0.0
    next_at = time.monotonic()
    while True:
        if pipe.poll():
            pipe.recv()
            pipe.send(struck)
        struck += strike(rate * _BATCH_S)
        next_at = max(next_at + _BATCH_S, time.monotonic() - 10 * _BATCH_S)
        time.sleep(max(0.0, next_at - time.monotonic()))


def _messages(port: int) -> Callable[[float], float]:
    """Of a client that greets well and then talks nonsense; what is answered is not read."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(f"tcp://{HOST}:{port}")
    dice = random.Random(port)

    def strike(count: float) -> float:
        sent = 0
        for _ in range(round(count)):
            with contextlib.suppress(zmq.Again):
                dealer.send(dice.randbytes(200), zmq.NOBLOCK)
                sent += 1
        while dealer.poll(0):
            dealer.recv()
        return sent

    return strike


def _connections(port: int) -> Callable[[float], float]:
    """Each brings some garbage and goes."""
    dice = random.Random(port)

    def strike(count: float) -> float:
        made = 0
        for _ in range(round(count)):
            with contextlib.suppress(OSError):
                with socket.create_connection((HOST, port), timeout=0.2) as stranger:
                    stranger.setblocking(False)
                    stranger.send(dice.randbytes(1000))
                    made += 1
        return made

    return strike


def _burn(_: float) -> float:
    end = time.thread_time() + _BATCH_S * BURNED_SHARE
    while time.thread_time() < end:
        pass
    return 1
