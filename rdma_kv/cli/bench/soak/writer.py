"""One writer: writes to blocks that are its own, with everything that may happen to a write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rdma_kv import (
    HandshakeError,
    NotQuiesced,
    PeerLost,
    RDMACommunicator,
    RdmaKvError,
    Transfer,
    TransferError,
)
from rdma_kv.cli.local import HOST

from .content import Bytes, Content, Ids
from .dice import NORMAL_DEADLINE_S, Dice, Throw
from .gate import Gate, Pace
from .geometry import Geometry
from .manifest import Entry, Manifest, tag_of
from .mirror import Life, Lives, Write
from .settings import SLOTS_PER_WRITER, Settings
from .tally import Tally

# What a write may take beyond its deadline: stopping, quiescing, a stop of this very process, and
# a machine that others use too.
_OVERDUE_S = 20.0
_NOTICE_WITHIN_S = 30.0
CONNECT_S = 5.0


@dataclass
class Source:
    """This writer's part of prefill's own cache: its block ids, and each region's bytes."""

    ids: Ids
    regions: Sequence[Bytes]


@dataclass
class Neighbours:
    """The decodes, as all writers of this process see them."""

    comms: Mapping[str, RDMACommunicator]
    ports: list[str]
    lives: list[Lives]


@dataclass
class _UnderWay:
    slot: int
    throw: Throw
    write: Write
    life: Life
    sequence: int
    begun: float
    transfer: Transfer | None = None
    error: Exception | None = None
    seconds: float = 0.0


class Writer(threading.Thread):
    def __init__(
        self,
        settings: Settings,
        number: int,
        geometry: Geometry,
        source: Source,
        neighbours: Neighbours,
        owned: Sequence[Ids],
        manifest: Manifest,
        gate: Gate,
        send_tally: Callable[[Tally], None],
    ) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.last_progress = time.monotonic()
        self._settings = settings
        self._number = number
        self._geometry = geometry
        self._source = source
        self._neighbours = neighbours
        self._owned = owned
        self._manifest = manifest
        self._gate = gate
        self._send_tally = send_tally
        self._dice = Dice(settings, number, owned)
        self._content = Content(settings.seed, settings.block_bytes)
        self._pace = Pace(settings.share_of_core)
        self._sequence = 0
        self._tally = Tally()
        self._tally_sent = 0.0

    def run(self) -> None:
        while self._gate.pass_():
            self._progress()
            try:
                self._step()
            except Exception as error:  # of this program itself, or one that nobody may see
                self._tally.fail(f"{self.name}: {type(error).__name__}: {error}")
            self._pace.rest()
            if time.monotonic() - self._tally_sent > 1:
                self.send_tally()

    def send_tally(self) -> None:
        """What happened since the last time; while parked, also for other threads."""
        tally, self._tally = self._tally, Tally()
        self._tally_sent = time.monotonic()
        self._send_tally(tally)

    def calm_round(self) -> None:
        """While parked, from another thread: one write to every decode each way must succeed."""
        for transport in self._settings.transports:
            for peer in range(self._settings.peers):
                under_way = self._begin(0, self._dice.calm_write(peer, transport))
                self._move([under_way])
                if under_way.error:
                    kind = type(under_way.error).__name__
                    self._tally.fail(
                        f"with all peers well, {under_way.write.what}: {kind}: {under_way.error}"
                    )
                self._settle(under_way)

    def check_all(self) -> None:
        """While parked, from another thread."""
        for peer, lives in enumerate(self._neighbours.lives):
            seen, problems = lives.current().check_blocks(self._owned[peer])
            self._tally.bytes_verified += seen
            for problem in problems:
                self._tally.fail(problem)

    # ---- one step

    def _step(self) -> None:
        if self._settings.sabotage == "hang" and self._number == 0 and self._sequence > 20:
            time.sleep(10 * self._settings.hang_s)
        if self._settings.faults and self._dice.chance(0.02):
            self._reconnect()
        batch = []
        for i, throw in enumerate(self._dice.batch()):
            if not self._neighbours.lives[throw.peer].current().is_loose(throw.ids):
                batch.append(self._begin(i, throw))
        self._move(batch)
        for under_way in batch:
            self._settle(under_way)
            self._progress()
        if any(isinstance(under_way.error, PeerLost) for under_way in batch):
            self._connect_lost(batch)

    def _begin(self, index: int, throw: Throw) -> _UnderWay:
        """Everything but the call itself."""
        self._sequence += 1
        slot = self._number * SLOTS_PER_WRITER + index
        regions = self._geometry.of_layers(throw.first_layer, throw.layer_count)
        expected = {
            r.number: self._content.blocks(slot, self._sequence, r.number, throw.ids, r.block_bytes)
            for r in regions
        }
        what = (
            f"write {self._sequence} of writer {self._number}, {len(throw.ids)} blocks over "
            f"{throw.transport}, layers {throw.first_layer} to "
            f"{throw.first_layer + throw.layer_count - 1}"
        )
        write = Write(what, throw.peer, throw.first_layer, throw.layer_count, throw.ids, expected)
        life = self._neighbours.lives[throw.peer].current()
        self._note(life.check_before(write))
        entry = Entry(self._sequence, throw.peer, throw.first_layer, throw.layer_count, throw.ids)
        self._manifest.write(slot, entry)
        return _UnderWay(slot, throw, write, life, self._sequence, time.monotonic())

    def _move(self, batch: list[_UnderWay]) -> None:
        """Starts all, from blocks that no two share, then waits for all."""
        sources = self._dice.shuffled(len(self._source.ids))
        taken = 0
        for under_way in batch:
            count = len(under_way.throw.ids)
            local = np.sort(sources[taken : taken + count])
            if self._dice.chance(0.5):
                local = sources[taken : taken + count]
            taken += count
            for number, blocks in under_way.write.expected.items():
                self._source.regions[number][local] = blocks
            self._call(under_way, self._source.ids[local])
        for under_way in batch:
            self._wait(under_way)

    def _call(self, under_way: _UnderWay, local: Ids) -> None:
        throw = under_way.throw
        comm = self._neighbours.comms[throw.transport]
        tag = tag_of(under_way.slot, under_way.sequence)
        layers = range(throw.first_layer, throw.first_layer + throw.layer_count)
        under_way.begun = time.monotonic()
        call = comm.write_cache if throw.is_sync else comm.write_cache_async
        try:
            under_way.transfer = call(
                HOST,
                self._neighbours.ports[throw.peer],
                local,
                throw.ids,
                layers,
                tag=tag,
                notify=throw.has_tag,
                timeout_s=throw.timeout_s,
                peer_epoch=(under_way.life.cache.epoch or None) if throw.is_pinned else None,
            )
        except RdmaKvError as error:
            under_way.error = error
        under_way.seconds = time.monotonic() - under_way.begun

    def _wait(self, under_way: _UnderWay) -> None:
        throw, transfer = under_way.throw, under_way.transfer
        latest = under_way.begun + throw.timeout_s + _OVERDUE_S
        if transfer is not None:
            if throw.cancel_after_s is not None:
                time.sleep(throw.cancel_after_s)
                transfer.cancel()
                self._tally.counts["cancels asked for"] += 1
            try:
                if not transfer.wait(max(0.0, latest - time.monotonic())):
                    self._tally.fail(
                        f"{under_way.write.what}: {_OVERDUE_S:g} s after its deadline of "
                        f"{throw.timeout_s:g} s it has not ended"
                    )
                    transfer.wait()
            except RdmaKvError as error:
                under_way.error = error
            under_way.seconds = transfer.stats.total_us / 1e6
        if time.monotonic() > latest + 1:
            self._tally.fail(f"{under_way.write.what}: ended long after its deadline")

    # ---- what must be true afterwards

    def _settle(self, under_way: _UnderWay) -> None:
        lives = self._neighbours.lives[under_way.throw.peer].since(under_way.life)
        self._tally.bytes_verified += under_way.write.bytes
        if under_way.error is None:
            self._settle_success(under_way, lives)
        else:
            self._settle_failure(under_way, under_way.error, lives)

    def _settle_success(self, under_way: _UnderWay, lives: list[Life]) -> None:
        write, throw = under_way.write, under_way.throw
        written = next((life for life in lives if life.holds(write)), lives[-1])
        for life in lives:
            self._note(
                life.settle_success(write) if life is written else life.settle_failure(write)
            )
        if throw.is_pinned and written is not under_way.life and under_way.life.cache.epoch:
            self._tally.fail(f"{write.what} landed in a life of decode that it was not meant for")
        self._tally.writes += 1
        self._tally.bytes_written += write.bytes
        self._tally.add_time(throw.transport, under_way.seconds)
        if throw.has_tag:
            self._expect_notice(under_way, written)

    def _settle_failure(self, under_way: _UnderWay, error: Exception, lives: list[Life]) -> None:
        write, throw = under_way.write, under_way.throw
        kind = type(error).__name__
        for life in lives:
            self._note(life.settle_failure(write))
            if isinstance(error, NotQuiesced):
                life.loosen(write)
        is_asked_for = throw.cancel_after_s is not None or throw.timeout_s < NORMAL_DEADLINE_S
        if not isinstance(error, (TransferError, HandshakeError)):
            self._tally.fail(f"{write.what}: an error that no write may end with: {kind}: {error}")
        elif not self._settings.faults and not is_asked_for:
            self._tally.fail(f"{write.what} failed, and nobody did anything: {kind}: {error}")
        self._tally.add_error(kind, str(error))

    def _expect_notice(self, under_way: _UnderWay, life: Life) -> None:
        """Decode must find the notice and all bytes; while it lives, and once it goes on."""
        slot, lives = under_way.slot, self._neighbours.lives[under_way.throw.peer]
        deadline = time.monotonic() + _NOTICE_WITHIN_S
        pause_s = 0.0002
        while life.cache.confirmed[slot] != under_way.sequence:
            if lives.current() is not life:
                return
            if time.monotonic() > deadline:
                self._tally.fail(f"no notice of {under_way.write.what}, which succeeded")
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)
        self._tally.notices_verified += 1

    def _note(self, problem: str | None) -> None:
        if problem:
            self._tally.fail(problem)

    def _progress(self) -> None:
        self.last_progress = time.monotonic()

    # ---- connections

    def _reconnect(self) -> None:
        """In the middle of what others write."""
        peer, transport = self._dice.peer(), self._dice.transport()
        self._neighbours.comms[transport].disconnect(HOST, self._neighbours.ports[peer])
        self._tally.counts["disconnects"] += 1
        self.connect(transport, peer)

    def _connect_lost(self, batch: list[_UnderWay]) -> None:
        for transport, peer in {(u.throw.transport, u.throw.peer) for u in batch if u.error}:
            self.connect(transport, peer)

    def connect(self, transport: str, peer: int, timeout_s: float = CONNECT_S) -> bool:
        """Any thread."""
        begun = time.monotonic()
        try:
            comm = self._neighbours.comms[transport]
            comm.connect(HOST, self._neighbours.ports[peer], timeout_s=timeout_s)
            self._tally.counts["connects"] += 1
        except HandshakeError as error:
            self._tally.add_error(f"connect: {type(error).__name__}", str(error))
            time.sleep(0.02)
            return False
        if time.monotonic() - begun > timeout_s + _OVERDUE_S:
            self._tally.fail(f"connect took {time.monotonic() - begun:.0f} s of {timeout_s:g}")
        return True
