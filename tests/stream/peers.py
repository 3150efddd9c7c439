"""A decode engine in a process of its own, and a prefill engine in this one, on the bare core."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rdma_kv import _core

HOST = "127.0.0.1"
Cache = npt.NDArray[np.uint8]
Ring = tuple[int, int, int, bool]  # address, slots, bytes of a slot, whether behind it is a GPU


@dataclass(frozen=True)
class Shape:
    layers: int = 2
    blocks: int = 64
    block_bytes: int = 4096
    stride_bytes: int = 4096
    tensors: int = 2

    @property
    def geometry(self) -> Any:
        tensors = [(kind, self.block_bytes, self.stride_bytes) for kind in range(self.tensors)]
        return _core.Geometry(self.layers, self.blocks, tensors)

    def empty_cache(self) -> Cache:
        return np.zeros((self.layers * self.tensors, self.blocks, self.stride_bytes), np.uint8)

    def layout(self, cache: Cache) -> Any:
        bases = [region.ctypes.data for region in cache]
        return _core.Layout(self.geometry, bases, [-1] * len(bases))


class DecodeEngine:
    """What the decode process runs; each method answers one request of the other side."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.cache = shape.empty_cache()
        self.engine = _core.Engine(shape.layout(self.cache))
        self.port = self.engine.listen(HOST, 0)

    def hello(self) -> tuple[int, int]:
        return self.engine.epoch, self.port

    def accept(self, transport: str, epoch: int, *args: Any) -> tuple[int, bytes]:
        accept = getattr(_core, f"{transport}_accept")
        ticket = accept(self.engine, "prefill", epoch, self.shape.geometry, *args)
        return ticket.link_id, ticket.token

    def accept_staged(self, transport: str, epoch: int, *args: Any) -> tuple[int, bytes, Ring]:
        accept = getattr(_core.Staging(self.engine), f"accept_{transport}")
        ticket, ring = accept(self.engine, "prefill", epoch, self.shape.geometry, *args)
        return ticket.link_id, ticket.token, ring

    def cma_offer(self) -> dict[str, Any]:
        return _core.cma_offer(self.engine)

    def wait_notices(self, tag: int, count: int, timeout_s: float) -> int:
        return self.engine.wait_notices(tag, count, timeout_s)

    def take_notices(self) -> list[tuple[int, str, int]]:
        return self.engine.take_notices()

    def links(self) -> list[tuple[int, str, str, int, bool]]:
        return self.engine.inbound_links()

    def end_epoch(self, epoch: int) -> None:
        assert self.engine.end_epoch(epoch, "the test wants it", 10.0), "it is not quiesced"

    def read(self) -> Cache:
        copy: Cache = self.cache.copy()
        return copy

    def bases(self) -> list[int]:
        return [int(region.ctypes.data) for region in self.cache]

    def log(self) -> list[tuple[int, str]]:
        return _core.drain_log()

    def close(self) -> None:
        self.engine.close(1.0)


@dataclass(frozen=True)
class Pieces:
    """Announces the bytes of an array, which follow one piece after the other.

    Whole, they would be read into a buffer of all that is missing, again and again, and a
    sanitizer looks at every byte of each.
    """

    shape: tuple[int, ...]

    def of(self, array: Cache) -> list[Cache]:
        flat = array.reshape(-1)
        return [flat[at : at + (1 << 20)] for at in range(0, flat.size, 1 << 20)]


def _serve(pipe: Connection, shape: Shape) -> None:
    decode = DecodeEngine(shape)
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(decode, name)(*args)
            if isinstance(answer, np.ndarray):
                pieces = Pieces(answer.shape)
                pipe.send((True, pieces))
                for piece in pieces.of(answer):
                    pipe.send_bytes(piece)
            else:
                pipe.send((True, answer))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class DecodeProcess:
    """Calls methods of a DecodeEngine in another process."""

    def __init__(self, shape: Shape) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, shape), daemon=True)
        self.process.start()
        theirs.close()
        self.shape = shape
        self.epoch, self.port = self.call("hello")

    def call(self, name: str, *args: Any) -> Any:
        self._pipe.send((name, args))
        is_fine, answer = self._pipe.recv()
        if not is_fine:
            raise RuntimeError(answer)
        if isinstance(answer, Pieces):
            array = np.empty(answer.shape, np.uint8)
            for piece in answer.of(array):
                self._pipe.recv_bytes_into(piece)
            return array
        return answer

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Every thread stands still meanwhile."""
        pid = self.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            # The signal's sender does not wait for the last thread to stop.
            stats = list(Path(f"/proc/{pid}/task").glob("*/stat"))
            assert eventually(lambda: all(") T " in stat.read_text() for stat in stats))
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        self._pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.kill()


class Prefill:
    def __init__(self, shape: Shape, seed: int = 1) -> None:
        self.shape = shape
        self.cache = shape.empty_cache()
        self.cache[:] = np.random.default_rng(seed).integers(1, 256, self.cache.shape, np.uint8)
        self.engine = _core.Engine(shape.layout(self.cache))

    def remote(self, decode: DecodeProcess, ticket: tuple[int, bytes], bases: list[int]) -> Any:
        return _core.RemoteEnd(
            self.engine, "decode", HOST, decode.port, decode.epoch, *ticket,
            decode.shape.geometry, bases, 5.0,
        )  # fmt: skip

    def open(self, decode: DecodeProcess, transport: str, streams: int = 1) -> Any:
        if transport == "tcp":
            ticket = decode.call("accept", "tcp", self.engine.epoch, streams)
            return _core.tcp_open(self.engine, self.remote(decode, ticket, []), streams)
        ticket = decode.call("accept", "cma", self.engine.epoch)
        offer = decode.call("cma_offer")
        remote = self.remote(decode, ticket, decode.call("bases"))
        return _core.cma_open(self.engine, remote, offer)

    def open_staged(self, decode: DecodeProcess, transport: str, streams: int = 1) -> Any:
        staging = _core.Staging(self.engine)
        last = streams if transport == "tcp" else 0
        *ticket, ring = decode.call("accept_staged", transport, self.engine.epoch, last)
        remote = self.remote(decode, (ticket[0], ticket[1]), decode.call("bases"))
        if transport == "tcp":
            return staging.open_tcp(self.engine, remote, ring, streams)
        return staging.open_cma(self.engine, remote, ring, decode.call("cma_offer"))

    def expected(self, before: Cache, src: Any, dst: Any, layers: range) -> Cache:
        """What decode's cache must hold after the write, byte by byte."""
        after: Cache = before.copy()
        for region in range(layers.start * self.shape.tensors, layers.stop * self.shape.tensors):
            bytes_ = self.shape.block_bytes
            after[region, dst, :bytes_] = self.cache[region, src, :bytes_]
        return after


def eventually(claim: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def error_of(transfer: Any, timeout_s: float = 10.0) -> str:
    """Why a transfer failed once it has ended; "" when it did not."""
    assert eventually(transfer.done, timeout_s)
    return str(transfer.error() or "")
