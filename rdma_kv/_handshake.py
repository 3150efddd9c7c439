"""The connecting side of the control plane: prefill's handshake, on the thread that connects.

It owns its socket and waits for nobody else, so a peer that hangs here delays only its caller.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._choice import candidates, matching_rail
from rdma_kv._errors import (
    AuthenticationError,
    HandshakeError,
    HandshakeTimeout,
    LayoutMismatch,
    PeerLost,
    RdmaKvError,
    TransportUnavailable,
)
from rdma_kv._greeting import NotZeroMqError, read_mechanism
from rdma_kv._network import endpoint, resolve
from rdma_kv._probe import nonce_for
from rdma_kv._ranks import as_seen_by_prefill
from rdma_kv._side import (
    TRANSPORTS,
    Side,
    from_wire,
    from_wire_endpoint,
    show,
    staged_streams,
    to_wire,
    to_wire_endpoint,
)

logger = logging.getLogger("rdma_kv")

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_QPS = 1
DEFAULT_STREAMS = 1

# Whoever answers at all does so at once; the rest of the deadline is for the handshake proper.
_GREETING_TIMEOUT_S = 5.0
# Heartbeats that a peer may leave unread before they are dropped.
_SEND_QUEUE = 64
# Messages of decode that may wait here; with the bound on their size a bound on memory.
_RECEIVE_QUEUE = 16

_HANDSHAKE_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
}
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


# (tp_size, tp_rank) that a decode is taken for when it declares none; size 0: the same as ours.
PeerRank = tuple[int, int]
UNKNOWN_RANK: PeerRank = (0, 0)


class Deadline:
    """One moment that all steps of a handshake share."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds; never below zero."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class Connection:
    """What a handshake leaves behind; the socket is the receiver's to close."""

    peer: _core.Peer
    socket: zmq.Socket[Any]
    epoch: int
    geometry: _core.Geometry
    transport: str
    reasons: Mapping[str, str]
    link_id: int
    patience_s: float  # decode's: it gives this side up after so much silence
    revoked: list[int]  # tags
    early: list[wire.Revoke]  # came during the handshake, and wait for their answers


@dataclass(frozen=True)
class Occasion:
    """Why this side connects."""

    ends: tuple[int, ...] = ()  # links to the same decode that this one replaces
    is_automatic: bool = False  # for a write, not for connect()
    epoch: int | None = None  # this life of the peer only


ASKED_FOR = Occasion()


def shake_hands(
    context: zmq.Context[Any],
    side: Side,
    host: str,
    port: int,
    timeout_s: float,
    peer_rank: PeerRank = UNKNOWN_RANK,
    occasion: Occasion = ASKED_FOR,
) -> Connection:
    """Agrees with the decode side at an address and opens the best link to it.

    A decode side that does not declare its tensor-parallel rank is taken for `peer_rank`.

    Raises:
        LayoutMismatch: The caches differ; both values are named.
        AuthenticationError: The two sides do not share a secret.
        TransportUnavailable: No transport, or not the one that was asked for, could be opened.
        PeerLost: The peer is in another life than the occasion asks for.
        HandshakeError: Nobody listens there, something else does, or the deadline passed.
    """
    handshake = _Handshake(context, side, host, port, Deadline(timeout_s), peer_rank, occasion)
    try:
        return handshake.run()
    except BaseException:
        handshake.abandon()
        raise


class _Handshake:
    def __init__(
        self,
        context: zmq.Context[Any],
        side: Side,
        host: str,
        port: int,
        deadline: Deadline,
        peer_rank: PeerRank,
        occasion: Occasion,
    ) -> None:
        self._peer_rank = peer_rank
        self._occasion = occasion
        self._early: list[wire.Revoke] = []
        self._context = context
        self._side = side
        self._name = f"{host}:{port}"
        self._deadline = deadline
        self._address = resolve(host, port)
        self._port = port
        self._socket: zmq.Socket[Any] | None = None
        self._monitor: zmq.Socket[Any] | None = None
        self._has_greeted = False  # ZeroMQ's own handshake is through

    def run(self) -> Connection:
        """All of it, in order."""
        self._probe()
        line = self._socket = self._connect()
        welcome = self._greet()
        check_life(self._name, welcome.epoch, self._occasion.epoch)
        ours = to_wire(self._side.geometry)
        geometry = from_wire(as_seen_by_prefill(welcome.geometry, ours, *self._peer_rank))
        try:
            _core.agree(self._side.geometry, geometry)
        except LayoutMismatch as error:
            raise LayoutMismatch(self._say(str(error))) from None
        peer, link_id, reasons = self._open_best(welcome, geometry)
        self._stop_monitor()
        return Connection(
            peer=peer,
            socket=line,
            epoch=welcome.epoch,
            geometry=geometry,
            transport=peer.transport,
            reasons=reasons,
            link_id=link_id,
            patience_s=welcome.patience_ms / 1000,
            revoked=welcome.revoked,
            early=self._early,
        )

    def abandon(self) -> None:
        """Frees the socket of a handshake that failed; the goodbye frees decode's side of it."""
        self._stop_monitor()
        if self._socket is not None:
            if self._has_greeted:
                self._send(wire.Bye(epoch=self._side.epoch, reason="the handshake failed"))
            self._socket.close(linger=200 if self._has_greeted else 0)
            self._socket = None

    # ---- the steps

    def _probe(self) -> None:
        """Looks first: ZeroMQ would retry a refused connection in silence."""
        # At least a moment: for a socket a timeout of 0 means "do not wait".
        patience_s = max(0.001, min(self._deadline.left_s(), _GREETING_TIMEOUT_S))
        try:
            mechanism = read_mechanism(self._address, self._port, patience_s)
        except ConnectionRefusedError:
            raise HandshakeError(
                self._say("connection refused; is decode running, and is this its port?")
            ) from None
        except TimeoutError:
            raise HandshakeTimeout(
                self._say(
                    f"gave up after {patience_s:.1f} s waiting for a greeting; is a firewall "
                    "between, does something else listen there, or does decode hang?"
                )
            ) from None
        except NotZeroMqError as error:
            raise HandshakeError(
                self._say(f"what listens there is not a decode side of rdma_kv: {error}")
            ) from None
        except OSError as error:
            raise HandshakeError(self._say(f"{error.strerror or error}")) from error
        if mechanism == "CURVE" and not self._side.keys:
            raise AuthenticationError(
                self._say("decode asks for a secret; set KVCACHE_AUTH_KEY_FILE to a copy of its")
            )
        if mechanism != "CURVE" and self._side.keys:
            raise AuthenticationError(
                self._say("decode has no secret; set KVCACHE_AUTH_KEY_FILE there too")
            )

    def _connect(self) -> zmq.Socket[Any]:
        line: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        line.linger = 0
        line.maxmsgsize = wire.MOST_MESSAGE_BYTES
        line.sndhwm = _SEND_QUEUE
        line.rcvhwm = _RECEIVE_QUEUE
        line.handshake_ivl = max(1, int(self._deadline.timeout_s * 1000))
        line.ipv6 = ":" in self._address
        if keys := self._side.keys:
            line.curve_publickey = keys.connecting.public
            line.curve_secretkey = keys.connecting.secret
            line.curve_serverkey = keys.listening.public
        self._monitor = line.get_monitor_socket(_WATCHED)
        line.connect(endpoint(self._address, self._port))
        return line

    def _greet(self) -> wire.Welcome:
        hello = wire.Hello(
            epoch=self._side.epoch,
            role="prefill",
            host=self._side.host,
            geometry=to_wire(self._side.geometry),
            transports=(
                list(TRANSPORTS)
                if self._side.config.transport == "auto"
                else [self._side.config.transport]
            ),
            peer_tp_size=self._peer_rank[0],
            peer_tp_rank=self._peer_rank[1],
            ends=list(self._occasion.ends),
            automatic=self._occasion.is_automatic,
        )
        answer = self._ask(hello, "its welcome")
        if isinstance(answer, wire.Refused):
            raise self._refusal(answer)
        if not isinstance(answer, wire.Welcome):
            raise HandshakeError(self._say(f"it answered hello with {type(answer).__name__}"))
        regions = answer.geometry.layers * len(answer.geometry.tensors)
        if len(answer.bases) != regions:
            raise HandshakeError(
                self._say(f"it sent {len(answer.bases)} addresses for {regions} regions")
            )
        return answer

    def _open_best(
        self, welcome: wire.Welcome, geometry: _core.Geometry
    ) -> tuple[_core.Peer, int, dict[str, str]]:
        possible, reasons = candidates(self._side, welcome)
        for name in possible:
            try:
                peer, link_id = self._open(name, welcome, geometry)
            except (RdmaKvError, ValueError) as error:
                reasons[name] = str(error)
                if self._deadline.left_s() == 0:
                    break
                continue
            for other in possible:
                if other not in reasons and other != name:
                    reasons[other] = f"{name} comes first, and works"
            return peer, link_id, reasons
        tried = (
            [name for name in TRANSPORTS if name in reasons]
            if self._side.config.transport == "auto"
            else [self._side.config.transport]
        )
        listed = "; ".join(f"{name}: {reasons[name]}" for name in tried if name in reasons)
        raise TransportUnavailable(self._say(f"no transport could be opened: {listed}"))

    def _open(
        self, name: str, welcome: wire.Welcome, geometry: _core.Geometry
    ) -> tuple[_core.Peer, int]:
        """One transport, whole: decode makes room, then the core opens the link, whose id comes."""
        side, connector, rail = self._side, None, 0
        if name == "rdma" and (pair := matching_rail(side, welcome)):
            qps = side.config.qps_per_peer or DEFAULT_QPS
            connector = _core.RdmaConnector(side.engine, side.rails[pair[0]], qps)
            rail = pair[1]
        streams = side.config.tcp_streams or DEFAULT_STREAMS
        opened = self._ask(
            wire.Open(
                epoch=side.epoch,
                peer_epoch=welcome.epoch,
                transport=name,
                streams=streams,
                rail=rail,
                rdma=to_wire_endpoint(connector.endpoint) if connector else None,
                staged=side.must_stage(name),
            ),
            f"its answer to opening {name}",
        )
        if isinstance(opened, wire.Refused):
            if opened.code == wire.UNAVAILABLE:
                raise TransportUnavailable(f"decode refused: {opened.reason}")
            raise self._refusal(opened)
        if not isinstance(opened, wire.Opened) or opened.epoch != welcome.epoch:
            raise HandshakeError(self._say("it restarted, or lost the thread, during the talk"))
        remote = _core.RemoteEnd(
            side.engine,
            self._name,
            self._address,
            welcome.data_port,
            welcome.epoch,
            opened.link_id,
            opened.token,
            geometry,
            welcome.bases,
            self._deadline.left_s(),
        )
        try:
            if opened.ring or side.must_stage(name):
                peer = self._open_staged(name, welcome, opened, remote, streams)
            elif name == "cma" and welcome.offers.cma:
                peer = _core.cma_open(side.engine, remote, _checked(welcome, side.epoch))
            elif name == "cuda_ipc" and welcome.offers.cuda_ipc:
                given = msgspec.structs.asdict(welcome.offers.cuda_ipc)
                peer = _core.cuda_ipc_open(side.engine, remote, given)
            elif name == "loopback":
                peer = _core.loopback_open(side.engine, remote)
            elif connector and welcome.offers.rdma and opened.rdma:
                peer = connector.connect(
                    remote,
                    from_wire_endpoint(opened.rdma),
                    welcome.offers.rdma.rails[rail].rkeys,
                    welcome.offers.rdma.flush,
                )
            else:
                peer = _core.tcp_open(side.engine, remote, streams)
            return peer, opened.link_id
        except BaseException:
            self._send(
                wire.CloseLink(epoch=side.epoch, peer_epoch=welcome.epoch, link_id=opened.link_id)
            )
            raise

    def _open_staged(
        self,
        name: str,
        welcome: wire.Welcome,
        opened: wire.Opened,
        remote: _core.RemoteEnd,
        streams: int,
    ) -> _core.Peer:
        side = self._side
        if opened.ring is None:
            raise HandshakeError(
                self._say("it does not stage blocks; use the same rdma_kv on both")
            )
        if side.staging is None:
            raise TransportUnavailable(
                f"{name}: decode's blocks are on a GPU, and this side cannot stage its own for it: "
                f"{side.no_staging}"
            )
        ring = (
            opened.ring.address,
            opened.ring.slots,
            opened.ring.slot_bytes,
            opened.ring.on_gpu,
        )
        if name == "cma" and welcome.offers.cma:
            offer = _checked(welcome, side.epoch)
            return side.staging.open_cma(side.engine, remote, ring, offer)
        if name == "tcp":
            return side.staging.open_tcp(side.engine, remote, ring, staged_streams(streams))
        raise HandshakeError(self._say(f"it wants to stage blocks over {name}"))

    # ---- talking

    def _send(self, message: wire.Message) -> None:
        assert self._socket is not None
        try:
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:  # the queue is for tens of messages, and a handshake sends a few
            logger.debug("%s takes no message", self._name)

    def _ask(self, message: wire.Message, what: str) -> wire.FromDecode:
        """Sends a message and waits for its answer, and says so when that does not come."""
        assert self._socket is not None
        assert self._monitor is not None
        self._send(message)
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            left_ms = int(self._deadline.left_s() * 1000)
            ready = dict(poller.poll(left_ms))
            if self._monitor in ready:
                self._on_monitor()
            if self._socket in ready:
                answer = self._receive()
                if not isinstance(answer, wire.Revoke):
                    return answer
                self._early.append(answer)
            if left_ms == 0:
                if not self._has_greeted:
                    what = "a ZeroMQ greeting; something else seems to listen there"
                raise HandshakeTimeout(self._late(what))

    def _receive(self) -> wire.FromDecode:
        assert self._socket is not None
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        try:
            return wire.decode_from_decode(frames[-1])
        except wire.OtherVersionError as error:
            raise HandshakeError(self._say(f"{error}; use the same rdma_kv on both")) from None
        except wire.MalformedError as error:
            raise HandshakeError(self._say(f"it speaks something else: {error}")) from None

    def _on_monitor(self) -> None:
        assert self._monitor is not None
        event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
        if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._has_greeted = True
        elif event["event"] in _HANDSHAKE_FAILED and not self._has_greeted:
            raise self._greeting_failed()

    def _greeting_failed(self) -> HandshakeError:
        if self._side.keys:
            return AuthenticationError(
                self._say(
                    "authentication failed: decode does not hold the secret of "
                    f"KVCACHE_AUTH_KEY_FILE={self._side.config.auth_key_file}; "
                    "give both sides the same"
                )
            )
        return HandshakeError(self._say("it hung up during the greeting of ZeroMQ"))

    def _refusal(self, refused: wire.Refused) -> HandshakeError:
        if refused.code == wire.LAYOUT_MISMATCH:
            ours = show(to_wire(self._side.geometry))
            return LayoutMismatch(
                self._say(f"{refused.reason} [prefill: {ours}; decode: {refused.ours}]")
            )
        if refused.code == wire.AUTHENTICATION:
            return AuthenticationError(self._say(refused.reason))
        return HandshakeError(self._say(f"refused ({refused.code}): {refused.reason}"))

    def _stop_monitor(self) -> None:
        if self._socket is not None and self._monitor is not None:
            with contextlib.suppress(zmq.ContextTerminated):  # closed meanwhile
                self._socket.disable_monitor()
            # Not left to the garbage collector: an error that somebody keeps holds a frame that
            # holds it, and closing the context would wait for it for ever.
            self._monitor.close(linger=0)
            self._monitor = None

    def _say(self, what: str) -> str:
        return f"connect to {self._name}: {what}"

    def _late(self, what: str) -> str:
        seconds = round(
            self._deadline.timeout_s, 3
        )  # what was left of a deadline is no round number
        return self._say(f"gave up after {seconds:g} s waiting for {what}")


def check_life(name: str, epoch: int, wanted: int | None) -> None:
    """Block ids are granted by one life of a peer; in its next they belong to somebody else.

    Raises:
        PeerLost: The peer is in another life than the one that is wanted.
    """
    if wanted not in (None, epoch):
        raise PeerLost(
            f"{name} restarted: it is in epoch {epoch}, and the write is meant for epoch {wanted}. "
            "Block ids of its earlier life mean nothing in this one: write to blocks that it "
            "grants anew"
        )


def _checked(welcome: wire.Welcome, prefill_epoch: int) -> dict[str, Any]:
    """The offer of cma, with the nonce that decode must have rather than the one it sent."""
    offer = welcome.offers.cma
    nonce = nonce_for(prefill_epoch, welcome.epoch, welcome.geometry, welcome.bases)
    return msgspec.structs.asdict(offer) | {"probe_nonce": nonce} if offer else {}
