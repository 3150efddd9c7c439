"""Prefill in this process, decode in another: opened, and proven to move the right bytes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

from rdma_kv import Config, RDMACommunicator, RdmaKvError
from rdma_kv.cli.local import HOST, local_environment

from .work import POOL_BLOCKS, Bytes, Work, checksums

ANSWER_S = 60.0


class BenchError(Exception):
    """The bench cannot go on; the text is for the user."""


def communicator(
    role: Literal["prefill", "decode"], pool: Bytes, transport: str
) -> RDMACommunicator:
    """One layer of keys only: the number of layers is not what is measured."""
    return RDMACommunicator(
        role=role,
        gpu_idx=-1,
        port="0",
        local_key_cache=[pool],
        local_value_cache=[],
        block_number=POOL_BLOCKS,
        block_bytes=pool.shape[1],
        config=Config.from_env({**local_environment(), "KVCACHE_TRANSPORT": transport}),
    )


@contextmanager
def checked_pair(transport: str, work: Work) -> Iterator[Callable[[], None]]:
    """A call that does the work once, after it has been done once with every byte checked.

    Raises BenchError when a byte is wrong.
    """
    pool = work.filled_pool()
    src, dst = work.ids()
    with Decode(work, transport) as decode, communicator("prefill", pool, transport) as comm:
        comm.connect(HOST, decode.port)

        def write() -> None:
            comm.write_cache(HOST, decode.port, src, dst, 0)

        write()
        if decode.checksums() != work.expected_checksums(pool):
            raise BenchError(f"{transport}, {work}: WRONG BYTES arrived; trust nothing it did")
        yield write


class Decode:
    """Owns the other process. Every question to it has a deadline."""

    def __init__(self, work: Work, transport: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # fork would copy our threads' locks
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, work, transport), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.port = str(self._answer())
        except Exception:
            self._process.kill()
            raise

    def checksums(self) -> list[int]:
        self._pipe.send("checksums")
        sums: list[int] = self._answer()
        return sums

    def __enter__(self) -> Decode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()  # the other process ends at this
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        if not self._pipe.poll(ANSWER_S):
            raise BenchError(f"the decode process gave no answer within {ANSWER_S:g} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise BenchError("the decode process ended without an answer") from None
        if isinstance(answer, Exception):
            raise answer  # as decode raised it
        return answer


def _serve(pipe: Connection, work: Work, transport: str) -> None:
    pool = work.empty_pool()
    try:
        with communicator("decode", pool, transport) as comm:
            pipe.send(comm.port)
            while pipe.recv() == "checksums":
                pipe.send(checksums(pool))
    except (EOFError, KeyboardInterrupt):
        pass
    except (RdmaKvError, ValueError) as error:
        pipe.send(error)
