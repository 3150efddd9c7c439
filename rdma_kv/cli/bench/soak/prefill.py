"""One prefill process: some writers, one communicator for each transport, and the watchdog."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rdma_kv import Config, RDMACommunicator
from rdma_kv.cli.bench.child_process import trim_memory
from rdma_kv.cli.local import local_environment

from .content import Content, Ids
from .gate import Gate
from .geometry import decode_geometry, owners_of_blocks
from .manifest import Manifest
from .mirror import Lives
from .settings import SLOTS_PER_WRITER, Settings
from .tally import Tally
from .writer import Neighbours, Source, Writer

HUNG = 86
_CONNECTED_WITHIN_S = 40.0
# What a closed connection gets to be gone on both sides.
_SETTLE_S = 1.5


def run(
    pipe: Connection, settings: Settings, number: int, plan: str, peers: list[tuple[str, str]]
) -> None:
    Prefill(pipe, settings, number, plan, peers).serve()


class Prefill:
    def __init__(
        self,
        pipe: Connection,
        settings: Settings,
        number: int,
        plan: str,
        peers: list[tuple[str, str]],
    ) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()  # of the pipe
        self._settings = settings
        self._gate = Gate(settings.threads)  # opened by "go"
        content = Content(settings.seed, settings.block_bytes)
        lives = []
        for peer, (_, file) in enumerate(peers):
            lives.append(Lives(settings, peer, decode_geometry(settings, peer), content))
            lives[-1].begin(0, file)
        self._owners = [owners_of_blocks(settings, peer) for peer in range(settings.peers)]
        most = max(int(np.bincount(owners[owners >= 0]).max()) for owners in self._owners)
        self._blocks_of_writer = most + SLOTS_PER_WRITER
        comms = self._communicators()
        self._neighbours = Neighbours(comms, [port for port, _ in peers], lives)
        first = number * settings.threads
        self._writers = [
            self._writer(first + i, i, Manifest(plan, settings)) for i in range(settings.threads)
        ]

    def serve(self) -> None:
        faulthandler.dump_traceback_later(2 * self._settings.hang_s, exit=True)
        for writer in self._writers:
            writer.start()
        self._gate_closed()
        self._checkpoint()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        while True:
            what, *arguments = self._pipe.recv()
            if what == "life":
                peer, number, file = arguments
                self._neighbours.lives[peer].begin(number, file)
                self._send("life", peer, number)
            elif what == "calm":
                self._gate_closed()
                self._checkpoint()
            elif what == "go":
                self._gate.open()
            elif what == "stop":
                break
        self._gate_closed()
        self._gate.end()
        for comm in self._neighbours.comms.values():
            comm.close()
        for writer in self._writers:
            writer.send_tally()
        self._send("stopped")

    def _communicators(self) -> dict[str, RDMACommunicator]:
        """All write from the same memory."""
        settings = self._settings
        count = settings.threads * self._blocks_of_writer
        sizes = (settings.block_bytes,) * 2 + (settings.scale_block_bytes,) * 2
        self._regions = [
            np.ones((count, size), np.uint8) for _ in range(settings.layers) for size in sizes
        ]
        return {
            transport: RDMACommunicator(
                "prefill",
                -1,
                "0",
                self._regions[0::4],
                self._regions[1::4],
                count,
                settings.block_bytes,
                key_scales=self._regions[2::4],
                value_scales=self._regions[3::4],
                scale_block_bytes=settings.scale_block_bytes,
                config=Config.from_env({**local_environment(), "KVCACHE_TRANSPORT": transport}),
            )
            for transport in settings.transports
        }

    def _writer(self, number: int, index: int, manifest: Manifest) -> Writer:
        begin = index * self._blocks_of_writer
        end = begin + self._blocks_of_writer
        ids: Ids = np.arange(begin, end, dtype=np.int64)
        owned = [np.flatnonzero(owners == number).astype(np.int64) for owners in self._owners]
        return Writer(
            self._settings,
            number,
            decode_geometry(self._settings, 0),
            Source(ids, [region[begin:end] for region in self._regions]),
            self._neighbours,
            owned,
            manifest,
            self._gate,
            lambda tally: self._send("tally", tally),
        )

    # ---- calm

    def _gate_closed(self) -> None:
        if not self._gate.close(2 * self._settings.hang_s):
            self._give_up("writers did not come to rest")

    def _checkpoint(self) -> None:
        """All decodes live. Everything must connect, write, and be as the mirrors say."""
        tally = Tally()
        self._connect_all(tally)
        time.sleep(_SETTLE_S)
        for transport, comm in self._neighbours.comms.items():
            for left in comm.unquiesced():
                tally.fail(f"prefill over {transport}, with all peers well: {left}")
        for lives in self._neighbours.lives:
            lives.forget_old()
            for problem in lives.current().tighten():
                tally.fail(problem)
        for writer in self._writers:
            writer.calm_round()
            writer.check_all()
            writer.send_tally()
            writer.last_progress = time.monotonic()
        trim_memory()
        self._send("tally", tally)
        self._send("calm")

    def _connect_all(self, tally: Tally) -> None:
        deadline = time.monotonic() + _CONNECTED_WITHIN_S
        for transport in self._settings.transports:
            for peer in range(self._settings.peers):
                while not self._writers[0].connect(transport, peer):
                    if time.monotonic() > deadline:
                        tally.fail(
                            f"could not connect to decode {peer} over {transport} within "
                            f"{_CONNECTED_WITHIN_S:g} s, with all peers well"
                        )
                        return

    # ---- the watchdog

    def _watch(self) -> None:
        """A writer that stands still ends this process; so does an interpreter that does."""
        hang_s = self._settings.hang_s
        while True:
            faulthandler.dump_traceback_later(hang_s + 30, exit=True)
            idle_s = time.monotonic() - min(w.last_progress for w in self._writers)
            if idle_s > hang_s and not self._gate.is_closed:
                self._give_up(f"a writer has not come further for {idle_s:.0f} s")
            time.sleep(1.0)

    def _give_up(self, why: str) -> None:
        print(f"HUNG: {why}; the stacks of all threads follow", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        self._send("hung", why)
        os._exit(HUNG)

    def _send(self, *message: Any) -> None:
        with self._lock:
            self._pipe.send(message)
