"""What a communicator is made of, and how that is made and ended in order."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import deque
from typing import Any

import zmq

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._arguments import Role
from rdma_kv._auth import load_keys
from rdma_kv._config import Config
from rdma_kv._control import ControlLoop
from rdma_kv._cuda import open_cuda, open_staging
from rdma_kv._listening import Listening
from rdma_kv._network import boot_id, interface_address
from rdma_kv._peers import Peers
from rdma_kv._rails import open_rails
from rdma_kv._revoker import Revoker
from rdma_kv._side import Side
from rdma_kv._stats import Departure
from rdma_kv._tensors import Cache

# What a peer that answers nothing may add to a close: quiescing its link, and ZeroMQ's end.
_QUIESCING_S = 5.0
# The control thread answers within milliseconds; else the next call tells.
_TAKING_S = 5.0


class Parts:
    """All that has to be shut down, without a reference to the communicator."""

    def __init__(self, role: Role, config: Config, cache: Cache, gpu_idx: int, port: int) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._has_ended = threading.Event()
        self._departed: deque[tuple[str, int, str]] = deque()  # taken, and not yet told
        keys = load_keys(config.auth_key_file) if config.auth_key_file else None
        address = interface_address(config.socket_ifname)
        with contextlib.ExitStack() as undo:
            is_rank_declared = role == "prefill" or cache.tp_size != 0
            if not is_rank_declared:
                cache = dataclasses.replace(cache, tp_size=1)
            # With the tensors, which links may write to until shut_down() has ended them: at exit
            # the last thread that holds the communicator may end before that.
            self._cache = cache
            engine = _core.Engine(cache.layout())
            undo.callback(engine.close, 0.0)
            rails, no_rdma = open_rails(
                engine,
                config,
                gpu_idx,
                is_written_to=role == "decode",
            )
            host = wire.Host(boot_id=boot_id(), pid=os.getpid())
            exports, no_cuda_ipc = open_cuda(engine, config, is_written_to=role == "decode")
            staging, no_staging = open_staging(engine, config)
            self.side = Side(
                engine,
                config,
                host,
                keys,
                rails,
                no_rdma,
                is_rank_declared,
                [exports] if exports is not None else [],
                no_cuda_ipc,
                staging,
                no_staging,
            )
            self._context: zmq.Context[Any] = zmq.Context()
            undo.callback(self._context.term)
            self._loop = ControlLoop(f"rdma_kv {role}")
            undo.callback(self._loop.discard)
            self.peers = Peers(self._loop, self._context, self.side)
            self.port = port
            self._listening: Listening | None = None
            if role == "decode":
                self._listening = Listening(self._loop, self._context, self.side, address, port)
                self.port = self._listening.port
            self._loop.start()
            undo.pop_all()

    def connected_names(self) -> list[str]:
        """Who talks to this decode side."""
        return self._listening.sessions.names() if self._listening else []

    @property
    def revoker(self) -> Revoker:
        """Of a decode side."""
        assert self._listening is not None
        return self._listening.revoker

    def take_departures(self) -> list[Departure]:
        """Of a decode side; each once."""
        assert self._listening is not None
        sessions = self._listening.sessions
        if sessions.departures:
            self._loop.run(lambda: self._departed.extend(sessions.take_departures()), _TAKING_S)
        gone = []
        while self._departed:
            with contextlib.suppress(IndexError):  # another thread was faster
                gone.append(self._departed.popleft())
        if not gone:
            return []
        unquiesced = {epoch for _, _, _, epoch, _ in self.side.engine.unquiesced_links()}
        return [Departure(peer, epoch, why, epoch not in unquiesced) for peer, epoch, why in gone]

    def shut_down(self, timeout_s: float) -> None:
        """In this order: transfers, goodbyes, the control thread, the core, ZeroMQ. Once.

        Who comes second waits for the first: it may free its tensors as soon as it returns.
        """
        if os.getpid() != self.pid:  # a fork has none of the threads
            return
        with self._lock:
            is_second, self._is_shut_down = self._is_shut_down, True
        if is_second:
            self._has_ended.wait(timeout_s + _QUIESCING_S)
            return
        try:
            self._end_all(timeout_s)
        finally:
            self._has_ended.set()

    def _end_all(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s

        def left_s() -> float:
            return max(0.0, deadline - time.monotonic())

        self.peers.close(left_s())
        if self._listening:
            self._loop.run(self._listening.close, left_s() + 1.0)
        has_stopped = self._loop.stop(left_s() + 1.0)
        self.side.engine.close(left_s())
        if has_stopped:
            self._end_zeromq(left_s() + 1.0)
        # A closed communicator that somebody keeps must not keep memory registered, or exported.
        self.side.rails.clear()
        self.side.cuda_exports.clear()

    def _end_zeromq(self, timeout_s: float) -> None:
        """term() waits for every socket, and a handshake on another thread may hold one."""
        ending = threading.Thread(target=self._context.term, name="rdma_kv end", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # the interpreter exits, and with it all of ZeroMQ
            return
        ending.join(timeout_s)
