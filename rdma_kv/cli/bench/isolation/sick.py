"""What is wrong in a phase, and who suffers from it: threads that write to the sick peer only."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rdma_kv import RDMACommunicator, RdmaKvError
from rdma_kv.cli.bench.child_process import Child
from rdma_kv.cli.bench.ports import listening_ports
from rdma_kv.cli.local import HOST

from . import decode, flooder
from .healthy import HealthyWrites
from .settings import SICK_RETRY_S, SICK_TIMEOUT_S, SICK_WRITERS, TAG, Settings

KINDS = {
    "nothing": "a control: what this machine's noise alone makes of the ratio",
    "burner": "a control: a process that burns processor time and touches nobody",
    "killed": "kill -9; two threads go on writing and connecting to it",
    "black hole": "an address that answers no packet; two threads go on connecting to it",
    "stopped": "SIGSTOP; two threads go on writing to it, with deadlines of 1 s",
    "control flood": "malformed messages at the control port of one of the healthy",
    "data flood": "connections with garbage at the data port of one of the healthy",
}


class Sick:
    """The ninth decode, and the flooders. Everything is healthy again when a phase ends."""

    def __init__(
        self,
        settings: Settings,
        comm: RDMACommunicator,
        transport: str,
        healthy: list[Child],
        healthy_ports: list[str],
        writes: HealthyWrites,
    ) -> None:
        self._settings = settings
        self._comm = comm
        self._transport = transport
        self._flooded, self._flooded_port = healthy[0], int(healthy_ports[0])
        self._writes = writes
        self.flooder: Child | None = None
        self._attempts = 0
        self._start()

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        with ExitStack() as undo:
            if kind == "killed":
                undo.callback(self._replace)
                undo.enter_context(self._victims(self._write, self.port))
                self.child.kill()
            elif kind == "stopped":
                self.child.pause()
                undo.callback(self._reconnect)
                undo.enter_context(self._victims(self._write, self.port))
                undo.callback(self.child.resume)
            elif kind == "black hole":
                port = undo.enter_context(_black_hole())
                undo.enter_context(self._victims(self._connect, str(port)))
            elif kind == "burner":
                undo.enter_context(self._flood("burn", 0))
            elif kind == "control flood":
                undo.enter_context(self._flood("control", self._flooded_port))
            elif kind == "data flood":
                ports = listening_ports(self._flooded.pid)
                [data_port] = [port for port in ports if port != self._flooded_port]
                undo.enter_context(self._flood("data", data_port))
            yield

    def blows(self) -> float:
        """Of the flooder, or attempts on the sick peer, so far."""
        if self.flooder is None:
            return self._attempts
        self.flooder.send("count")
        struck: float = self.flooder.pipe.recv()
        return struck

    def close(self) -> None:
        self.child.kill()

    # ---- the peer

    def _start(self) -> None:
        self.child = Child("the sick decode", decode.run, self._transport)
        self.port = str(self.child.pipe.recv())
        self._comm.connect(HOST, self.port)

    def _replace(self) -> None:
        self._comm.disconnect(HOST, self.port)
        self._start()

    def _reconnect(self) -> None:
        self._comm.disconnect(HOST, self.port)
        self._comm.connect(HOST, self.port)

    # ---- who writes to it

    @contextmanager
    def _victims(self, attempt: Callable[[str], None], port: str) -> Iterator[None]:
        has_ended = threading.Event()

        def run() -> None:
            while not has_ended.is_set():
                with contextlib.suppress(RdmaKvError):
                    attempt(port)
                self._attempts += 1
                has_ended.wait(SICK_RETRY_S)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(SICK_WRITERS)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)  # they are in the middle of it when the peer falls sick
        try:
            yield
        finally:
            has_ended.set()
            for thread in threads:
                thread.join(60)
                if thread.is_alive():
                    raise TimeoutError("a write to a sick peer did not end within 60 s")

    def _write(self, port: str) -> None:
        try:
            src, dst = self._writes.src, self._writes.dst
            self._comm.write_cache(HOST, port, src, dst, 0, tag=TAG, timeout_s=SICK_TIMEOUT_S)
        except RdmaKvError:
            self._connect(port)

    def _connect(self, port: str) -> None:
        self._comm.connect(HOST, port, timeout_s=SICK_TIMEOUT_S)

    # ---- floods

    @contextmanager
    def _flood(self, kind: str, port: int) -> Iterator[None]:
        child = Child("the flooder", flooder.run, kind, port, self._settings.flood_rate)
        self.flooder = child
        try:
            time.sleep(0.5)  # a new process computes much before it does its work
            yield
        finally:
            child.kill()
            self.flooder = None


@contextmanager
def _black_hole() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel drops what else wants in."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
