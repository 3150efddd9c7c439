"""One decode: is written to, and checks by itself what its notices announce."""

from __future__ import annotations

import select
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from rdma_kv import Config, ConfigError, RDMACommunicator, RdmaKvError
from rdma_kv.cli.bench.child_process import trim_memory
from rdma_kv.cli.local import local_environment

from .cache_file import CacheFile
from .content import Content
from .geometry import Geometry, decode_geometry
from .manifest import Entry, Manifest, slot_of, tag_of
from .settings import SLOTS_PER_WRITER, Settings

_BIND_WITHIN_S = 10.0
# Then what a revoke has left is looked at again; a writer soon has something else to do.
_STILL_AFTER_S = (0.002, 0.02, 0.1, 0.2)
# Sequence numbers that a writer uses within some tenths of a second.
_COMING = 16


def run(pipe: Connection, settings: Settings, peer: int, port: str, file: str, plan: str) -> None:
    Decode(pipe, settings, peer, port, file, plan).serve()


def communicator(settings: Settings, geometry: Geometry, cache: CacheFile, port: str) -> Any:
    kinds: list[list[Any]] = [[], [], [], []]  # keys, values, scales of both
    for region in geometry.regions:
        blocks = region.of(cache.memory)[:, : region.block_bytes]
        kinds[region.number % 4].append(blocks)
    return RDMACommunicator(
        "decode",
        -1,
        port,
        kinds[0],
        kinds[1],
        settings.blocks,
        settings.block_bytes,
        key_scales=kinds[2],
        value_scales=kinds[3],
        scale_block_bytes=settings.scale_block_bytes,
        config=Config.from_env(local_environment()),
    )


class Decode:
    def __init__(
        self, pipe: Connection, settings: Settings, peer: int, port: str, file: str, plan: str
    ) -> None:
        self._pipe = pipe
        self._peer = peer
        self._settings = settings
        self._content = Content(settings.seed, settings.block_bytes)
        self._geometry = decode_geometry(settings, peer)
        self._cache = CacheFile(file, self._geometry)
        self._manifest = Manifest(plan, settings)
        self._lock = threading.Lock()  # of the pipe
        self._comm = self._listen(port)
        self._spoilt = 0
        self._forgiven: dict[int, int] = {}  # slot: sequence whose notice may have been dropped

    def serve(self) -> None:
        with self._comm:
            self._cache.set_epoch(self._comm.epoch)
            self._send("ready", self._comm.port)
            sources: list[Any] = [self._comm.fileno(), self._pipe]
            while True:
                readable, _, _ = select.select(sources, [], [])
                if self._comm.fileno() in readable:
                    self._take_notices()
                if self._pipe in readable and not self._obey(*self._pipe.recv()):
                    break
        self._send("stopped")

    def _listen(self, port: str) -> RDMACommunicator:
        """On the port of its last life, which somebody's outgoing connection may hold for long."""
        deadline = time.monotonic() + _BIND_WITHIN_S
        while True:
            try:
                found: RDMACommunicator = communicator(
                    self._settings, self._geometry, self._cache, port
                )
                return found
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _obey(self, what: str, *arguments: Any) -> bool:
        if what == "calm":
            self._take_notices()
            self._tell_departures()
            trim_memory()
            self._send("calm", self._comm.stats().inbound_links)
        elif what == "revoke tag":
            threading.Thread(target=self._revoke_tag, args=arguments, daemon=True).start()
        elif what == "revoke peer":
            threading.Thread(target=self._revoke_peer, args=arguments, daemon=True).start()
        return what != "stop"

    def _take_notices(self) -> None:
        for notice in self._comm.poll_received():
            slot = slot_of(notice.tag)
            entry = self._manifest.read(slot)
            if entry.sequence == 0 or tag_of(slot, entry.sequence) != notice.tag:
                continue  # its writer has seen it fail, and has gone on
            self._sabotage(entry)
            problem, size = self._compare(slot, entry)
            # Its writer goes on once it is confirmed, or forgiven: then the blocks may be others'.
            is_over = self._forgiven.get(slot) == entry.sequence
            if is_over or not self._manifest.is_current(slot, entry):
                continue
            if problem:
                self._send("failure", f"{problem} although its notice is here: {notice}")
            self._cache.confirmed[slot] = entry.sequence
            self._send("verified", size)

    def _compare(self, slot: int, entry: Entry) -> tuple[str | None, int]:
        size = 0
        for region in self._geometry.of_layers(entry.first_layer, entry.layer_count):
            blocks = region.of(self._cache.memory)[entry.ids, : region.block_bytes]
            expected = self._content.blocks(
                slot, entry.sequence, region.number, entry.ids, region.block_bytes
            )
            size += blocks.size
            wrong = (blocks != expected).any(axis=1)
            if wrong.any():
                block = int(entry.ids[wrong.argmax()])
                where = (
                    f"decode {self._peer}, {region.name}, block {block} and {wrong.sum()} in all"
                )
                return f"{where} of {len(entry.ids)} blocks are not as written", size
        return None, size

    # ---- revoking

    def _revoke_tag(self, first: int) -> None:
        """Takes back a write to this side, under way if there is one; then it must lie still."""
        slot = self._slot_to_revoke(first)
        if slot is None:
            return
        entry = self._manifest.read(slot)
        # Some of the tags that its writer is about to use are refused before their writes begin.
        coming = [tag_of(slot, entry.sequence + i) for i in range(1, _COMING)]
        try:
            for tag in (tag_of(slot, entry.sequence), *coming):
                self._comm.revoke(tag)
                self._forgive(slot, tag)
                if tag not in coming:
                    self._check_still(slot, entry)
            for tag in (tag_of(slot, entry.sequence), *coming):
                self._comm.allow(tag)
            self._send("done", "revokes of tags")
        except RdmaKvError as error:
            self._send("error", f"revoke: {type(error).__name__}", str(error))

    def _forgive(self, slot: int, tag: int | None = None) -> None:
        """A write may have succeeded and its notice been dropped: its writer need not wait."""
        entry = self._manifest.read(slot)
        is_meant = tag in (None, tag_of(slot, entry.sequence))
        if entry.sequence and entry.peer == self._peer and is_meant:
            self._forgiven[slot] = entry.sequence  # first
            self._cache.confirmed[slot] = entry.sequence

    def _check_still(self, slot: int, entry: Entry) -> None:
        """For as long as its writer has begun nothing else."""
        before = self._digest(entry)
        looks = 0
        for pause_s in _STILL_AFTER_S:
            time.sleep(pause_s)
            after = self._digest(entry)
            if not self._is_untouched(slot, entry):
                break
            looks += 1
            if before != after:
                tag = tag_of(slot, entry.sequence)
                self._send("failure", f"decode {self._peer}: changed after revoke({tag})")
                break
        if looks:
            self._send("done", "revoked writes that lay still")

    def _revoke_peer(self, number: int) -> None:
        """Its writers see their writes fail; it may come back by connect()."""
        peers = self._comm.peers()
        if not peers:
            return
        try:
            self._comm.revoke(peers[number % len(peers)])
            for slot in range(self._settings.slots):
                self._forgive(slot)
            self._send("done", "revokes of a peer")
        except RdmaKvError as error:
            self._send("error", f"revoke: {type(error).__name__}", str(error))

    def _tell_departures(self) -> None:
        """While everybody is well, nothing may be left that could still land."""
        for departure in self._comm.poll_departed():
            how = "quiesced" if departure.is_quiesced else "not quiesced"
            self._send("done", f"departures, {how}")
        for left in self._comm.unquiesced():
            self._send("failure", f"decode {self._peer}, with all peers well: {left}")

    def _slot_to_revoke(self, first: int) -> int | None:
        found = None
        for i in range(self._settings.slots):
            slot = (first + i) % self._settings.slots
            entry = self._manifest.read(slot)
            if entry.sequence and entry.peer == self._peer:
                found = slot
                if self._cache.confirmed[slot] != entry.sequence:
                    break
        return found

    def _is_untouched(self, slot: int, entry: Entry) -> bool:
        """Whether no slot of its writer has begun anything new on these blocks since."""
        first = slot - slot % SLOTS_PER_WRITER
        for other in range(first, first + SLOTS_PER_WRITER):
            now = self._manifest.read(other)
            if other == slot and now.sequence != entry.sequence:
                return False
            if other != slot and now.sequence > entry.sequence:
                return False
        return True

    def _digest(self, entry: Entry) -> list[int]:
        regions = self._geometry.of_layers(entry.first_layer, entry.layer_count)
        return [hash(region.of(self._cache.memory)[entry.ids].tobytes()) for region in regions]

    # ---- a checker that was never seen to fail proves nothing

    def _sabotage(self, entry: Entry) -> None:
        kind = self._settings.sabotage
        most = 5 if kind == "late" else 1  # a write at that very moment would cover one up
        if not kind or self._spoilt >= most or self._peer != 0 or not len(entry.ids):
            return
        region = self._geometry.of_layers(entry.first_layer, entry.layer_count)[0]
        blocks = region.of(self._cache.memory)
        if kind == "notice":
            blocks[entry.ids[0], 7] ^= 0x10
        elif kind == "guard":
            self._cache.memory[region.offset - 1] ^= 0x10
        elif kind == "late":
            late = threading.Timer(0.7, lambda: blocks[entry.ids[0]].__ixor__(0x10))
            late.daemon = True
            late.start()
        self._spoilt += 1

    def _send(self, *message: object) -> None:
        with self._lock:
            self._pipe.send(message)
