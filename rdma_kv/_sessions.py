"""The listening side of the control plane: decode answers each prefill, on the control thread.

Nothing here waits for a peer. What a peer can make this side keep is bounded: one session per
socket, a few links per session, and messages of a quarter MiB.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import zmq
from msgspec.structs import replace

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._checksums import BlockSums
from rdma_kv._control import ControlLoop, heartbeat_period_s
from rdma_kv._errors import LayoutMismatch, RdmaKvError
from rdma_kv._offers import Offering, accept_link, make_offering
from rdma_kv._probe import Probe, nonce_for
from rdma_kv._ranks import as_seen_by_decode
from rdma_kv._revocation import Revocations
from rdma_kv._side import Side, from_wire, show, to_wire

logger = logging.getLogger("rdma_kv")

MOST_SESSIONS = 4096
# A handshake tries a handful of transports, a reconnect uses a new session.
MOST_LINKS_PER_SESSION = 16
# Each holds page-locked memory.
MOST_STAGED_PER_SESSION = 2
# Peers that went and that nobody has asked about.
_MOST_DEPARTURES = 1024
# Copies of a GPU that a link had begun: far more than they take, and little for other peers' pings.
_COPYING_S = 0.2
# Then others get their turn; what waits stays in ZeroMQ's bounded queues.
_MOST_MESSAGES_AT_ONCE = 64


@dataclass
class Session:
    """One prefill, as long as its socket lives."""

    identity: bytes
    name: str
    pid: int
    epoch: int
    geometry: _core.Geometry
    last_heard: float
    probe: Probe
    links: list[int] = field(default_factory=list)
    staged: set[int] = field(default_factory=set)  # of those that are or were among them
    was_linked: bool = False  # it came as far as a link
    is_back: bool = False  # as far as a connection, which says so by its first ping
    why_linkless: str = ""  # why its last link ended; one tick later the session does, too


class Sessions:
    """All prefill sides that talk to this decode. Lives on the control thread."""

    def __init__(
        self, loop: ControlLoop, socket: zmq.Socket[Any], side: Side, data_port: int
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._side = side
        self._sessions: dict[bytes, Session] = {}
        self._timeout_s = side.config.peer_timeout_s
        self.period_s = heartbeat_period_s(self._timeout_s)
        self.revocations = Revocations()
        # (name, epoch, why) of peers that went.
        self.departures: deque[tuple[str, int, str]] = deque(maxlen=_MOST_DEPARTURES)
        self._offering: Offering = make_offering(side)
        self._data_port = data_port
        self._geometry = to_wire(side.geometry)
        if not side.is_rank_declared:
            self._geometry = replace(self._geometry, tp_size=0)
        self._bases = [base for base, _, _ in side.engine.layout.regions]
        self._refused_once: set[str] = set()

    def names(self) -> list[str]:
        """Who is connected; any thread."""
        return [session.name for session in list(self._sessions.values())]

    # ---- on the control thread, for others

    def all(self) -> list[Session]:
        """Every session."""
        return list(self._sessions.values())

    def send(self, session: Session, message: wire.Message) -> None:
        """See _send."""
        self._send(session.identity, message)

    def end(self, session: Session, why: str) -> None:
        """Ends a session and its links, and tells the peer."""
        self._send(session.identity, wire.Bye(epoch=self._side.epoch, reason=wire.sentence(why)))
        self._end(session, why)

    def take_departures(self) -> list[tuple[str, int, str]]:
        """(name, epoch, why) of each peer that went; each once.

        Whoever is told may give its blocks to others: so that peer comes back by connect() only.
        One that is coming back is not told of yet, and not at all once it is here.
        """
        here = {session.epoch for session in self._sessions.values()}
        gone = {each[1]: each for each in self.departures if each[1] not in here}
        coming = [each for each in self.departures if each[1] in here]
        self.departures.clear()
        self.departures.extend(coming)
        for epoch in gone:
            self.revocations.send_away(epoch)
        return list(gone.values())

    # ---- called by the control loop

    def on_readable(self) -> None:
        """Answers what waits, fairly: at most so many before others get their turn."""
        for _ in range(_MOST_MESSAGES_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if len(frames) != 2:
                continue
            self._on_message(frames[0].bytes, frames[1])

    def tick(self, now: float, late_s: float) -> None:
        """Ends the sessions of peers that fell silent, or whose links are gone."""
        for session in self.all():
            session.last_heard += late_s
            silent_s = now - session.last_heard
            # One period early: the next look would be too late.
            if silent_s > self._timeout_s - self.period_s:
                logger.warning(
                    "%s sent nothing for %.1f s (KVCACHE_PEER_TIMEOUT_S=%g): its links are ended",
                    session.name,
                    silent_s,
                    self._timeout_s,
                )
                self._end(session, f"it sent nothing for {silent_s:.1f} s")
            elif session.why_linkless and not session.links:
                self._end(session, session.why_linkless)

    def on_links_ended(self) -> None:
        """Learns from the core which links have ended: the peer's process died, or closed them."""
        ended = dict(self._side.engine.take_ended_links())
        for session in self.all():
            for link_id in [link for link in session.links if link in ended]:
                session.links.remove(link_id)
                session.why_linkless = ended[link_id]

    def close(self) -> None:
        """Says goodbye to all and closes the socket; their links end with the engine."""
        for session in self.all():
            self._send(session.identity, wire.Bye(epoch=self._side.epoch, reason="closed"))
            self._end(session, "this side was closed")
        self._loop.forget(self._socket)
        self._socket.close()

    # ---- messages

    def _on_message(self, identity: bytes, frame: zmq.Frame) -> None:
        try:
            message = wire.decode_from_prefill(frame.bytes)
        except wire.OtherVersionError as error:
            theirs, ours = str(error.theirs), str(wire.VERSION)
            reason = f"decode speaks version {ours} of the wire, prefill version {theirs}"
            self._refuse(identity, wire.WRONG_VERSION, reason, ours, theirs)
            return
        except wire.MalformedError as error:
            logger.debug("a message from %s was refused: %s", _address_of(frame), error)
            self._refuse(identity, wire.MALFORMED, str(error))
            return
        if isinstance(message, wire.Hello):
            self._on_hello(identity, message, _address_of(frame))
            return
        session = self._sessions.get(identity)
        if session is None or not self._is_current(session, message):
            if not isinstance(message, wire.Bye):
                reason = "the message is of an epoch that has ended; connect again"
                self._refuse(identity, wire.STALE_EPOCH, reason, ours=str(self._side.epoch))
            return
        session.last_heard = time.monotonic()
        match message:
            case wire.Ping():
                if not session.is_back:
                    self._on_back(session)
                self._send(identity, wire.Pong(epoch=self._side.epoch, sequence=message.sequence))
            case wire.Open():
                self._on_open(session, message)
            case wire.CloseLink():
                if message.link_id in session.links:
                    session.links.remove(message.link_id)
                    session.was_linked = False
                    self._side.engine.end_link(message.link_id, "prefill could not open it")
            case wire.Verify():
                self._on_verify(session, message)
            case wire.Revoked():
                self.revocations.on_revoked(identity, message.sequence)
            case wire.Bye():
                logger.info("%s said goodbye: %s", session.name, message.reason or "no reason")
                self._end(session, f"it said goodbye: {message.reason or 'no reason given'}")

    def _on_back(self, session: Session) -> None:
        """Pings begin once connect() has gone well; before, it may still fail."""
        session.is_back = True
        self.revocations.on_back(session.epoch)
        kept = [each for each in self.departures if each[1] != session.epoch]
        self.departures.clear()
        self.departures.extend(kept)

    def _is_current(self, session: Session, message: wire.FromPrefill) -> bool:
        if message.epoch != session.epoch:
            return False
        return getattr(message, "peer_epoch", self._side.epoch) == self._side.epoch

    def _on_hello(self, identity: bytes, hello: wire.Hello, address: str) -> None:
        if old := self._sessions.get(identity):
            self._end(old, "it said hello again")
        name = f"{address} (pid {hello.host.pid})"
        refusal = self._judge(hello, name)
        if refusal is not None:
            self._refuse(identity, *refusal)
            if refusal[0] not in self._refused_once:  # a peer that retries fills no log
                self._refused_once.add(refusal[0])
                logger.warning("%s was refused: %s", name, refusal[1])
            return
        if not self._end_former_links(hello):
            reason = "this side's GPU still copies what came over a former link; try again"
            self._refuse(identity, wire.BUSY, reason)
            return
        self.revocations.on_hello(name, hello.epoch)
        if not self._sessions:
            self._loop.start_ticking(self)
        probe = Probe(nonce_for(hello.epoch, self._side.epoch, self._geometry, self._bases))
        self._sessions[identity] = Session(
            identity,
            name,
            hello.host.pid,
            hello.epoch,
            self._geometry_of(hello),
            time.monotonic(),
            probe,
        )
        offers, reasons = self._offering.offers, self._offering.reasons
        if cma := offers.cma:
            cma = replace(cma, probe_address=probe.address, probe_nonce=probe.nonce)
            offers = replace(offers, cma=cma)
        if hello.host.pid != os.getpid() or hello.host.boot_id != self._side.host.boot_id:
            offers = replace(offers, loopback=None)
            reasons = reasons | {"loopback": "the two sides are not one process"}
        self._send(
            identity,
            wire.Welcome(
                epoch=self._side.epoch,
                host=self._side.host,
                geometry=self._geometry,
                bases=self._bases,
                data_port=self._data_port,
                offers=offers,
                reasons=reasons,
                patience_ms=int(self._timeout_s * 1000),
                revoked=self.revocations.tags(),
            ),
        )

    def _end_former_links(self, hello: wire.Hello) -> bool:
        """So that the welcome proves it: nothing of the links that it replaces can land.

        False when something still may.
        """
        if not hello.ends:
            return True
        self._side.engine.end_confirmed_links(hello.ends, hello.epoch, "its prefill connects anew")
        for session in self.all():
            if session.epoch != hello.epoch:
                continue
            for link_id in [link for link in session.links if link in hello.ends]:
                session.links.remove(link_id)
                session.why_linkless = "it connected anew"
        return self._is_quiet(hello)

    def _is_quiet(self, hello: wire.Hello) -> bool:
        """What a GPU has begun to copy is over in a moment, and nobody can stop it."""
        deadline = time.monotonic() + _COPYING_S
        while any(
            link_id in hello.ends and epoch == hello.epoch
            for link_id, _, _, epoch, _ in self._side.engine.unquiesced_links()
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def _geometry_of(self, hello: wire.Hello) -> _core.Geometry:
        if self._side.is_rank_declared:
            return from_wire(hello.geometry)
        seen = as_seen_by_decode(hello.geometry, hello.peer_tp_size, hello.peer_tp_rank)
        return from_wire(seen)

    def _judge(self, hello: wire.Hello, name: str) -> tuple[str, str, str, str] | None:
        """Why a hello is refused: (code, reason, ours, theirs)."""
        if hello.role != "prefill":
            reason = f"decode is connected to by prefill sides, and {name} is {hello.role!r}"
            return wire.WRONG_ROLE, reason, "decode", hello.role
        if hello.automatic and self.revocations.is_sent_away(hello.epoch):
            reason = (
                "decode has revoked all that it had granted to this side; call connect() again, "
                "and write to blocks that it grants anew"
            )
            return wire.PEER_REVOKED, reason, "", ""
        if len(self._sessions) >= MOST_SESSIONS:
            return wire.BUSY, f"decode serves {MOST_SESSIONS} peers already", "", ""
        try:
            _core.agree(self._geometry_of(hello), self._side.geometry)
        except LayoutMismatch as error:
            ours, theirs = show(self._geometry), show(hello.geometry)
            return wire.LAYOUT_MISMATCH, str(error), ours, theirs
        except ValueError as error:
            return wire.MALFORMED, f"the geometry makes no sense: {error}", "", ""
        return None

    def _on_open(self, session: Session, request: wire.Open) -> None:
        if len(session.links) >= MOST_LINKS_PER_SESSION:
            reason = f"{MOST_LINKS_PER_SESSION} links are open already"
            self._refuse(session.identity, wire.BUSY, reason)
            return
        is_staged = request.staged or self._side.must_stage(request.transport)
        if is_staged and len(session.staged.intersection(session.links)) >= MOST_STAGED_PER_SESSION:
            reason = f"{MOST_STAGED_PER_SESSION} staged links are open already"
            self._refuse(session.identity, wire.BUSY, reason)
            return
        if getattr(self._offering.offers, request.transport, None) is None:
            reason = self._offering.reasons.get(request.transport, "decode does not offer it")
            self._refuse(session.identity, wire.UNAVAILABLE, reason)
            return
        try:
            accepted = accept_link(self._side, request, session.name, session.geometry, session.pid)
        except (RdmaKvError, ValueError) as error:
            self._refuse(session.identity, wire.UNAVAILABLE, str(error))
            return
        ticket = accepted.ticket
        session.links.append(ticket.link_id)
        if accepted.ring:
            session.staged.add(ticket.link_id)
        session.was_linked, session.why_linkless = True, ""
        opened = wire.Opened(
            epoch=self._side.epoch,
            link_id=ticket.link_id,
            token=ticket.token,
            rdma=accepted.rdma,
            ring=accepted.ring,
        )
        self._send(session.identity, opened)

    def _on_verify(self, session: Session, request: wire.Verify) -> None:
        if not self._side.config.verify:  # it costs this thread time, so nobody gets it unasked
            reason = "decode was started without KVCACHE_VERIFY; set it on both sides"
            self._refuse(session.identity, wire.UNAVAILABLE, reason)
            return
        try:
            if len(request.blocks) != len(request.checksums):
                raise ValueError(
                    f"{len(request.blocks)} blocks with {len(request.checksums)} checksums"
                )
            sums = BlockSums.on_decode(self._side.engine.layout, session.geometry)
            mine = sums.of(request.layer, request.tensor, request.blocks)
        except ValueError as error:
            self._refuse(session.identity, wire.MALFORMED, str(error))
            return
        pairs = zip(request.blocks, request.checksums, mine, strict=False)
        bad = [block for block, theirs, ours in pairs if theirs != ours]
        self._send(
            session.identity,
            wire.Verified(epoch=self._side.epoch, sequence=request.sequence, bad_blocks=bad),
        )

    # ---- helpers

    def _end(self, session: Session, why: str) -> None:
        self._sessions.pop(session.identity, None)
        for link_id in session.links:
            self._side.engine.end_link(link_id, why)
        if session.was_linked:
            self.departures.append((session.name, session.epoch, why))
        self.revocations.on_session_end(session.identity)
        if not self._sessions:
            self._loop.stop_ticking(self)

    def _refuse(
        self, identity: bytes, code: str, reason: str, ours: str = "", theirs: str = ""
    ) -> None:
        self._send(
            identity,
            wire.Refused(
                epoch=self._side.epoch,
                code=code,
                reason=wire.sentence(reason),
                ours=wire.sentence(ours),
                theirs=wire.sentence(theirs),
            ),
        )

    def _send(self, identity: bytes, message: wire.Message) -> None:
        """Never blocks: what a slow peer does not take is dropped, and its deadline tells it."""
        try:
            self._socket.send_multipart([identity, wire.encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            logger.debug("a %s was dropped: the peer reads too slowly", type(message).__name__)


def _address_of(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return "unknown address"
