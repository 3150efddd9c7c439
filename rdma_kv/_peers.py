"""Prefill's peers: one connection to each, whoever asks for it and however often."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import zmq

from rdma_kv import _core
from rdma_kv._arguments import check_port
from rdma_kv._control import ControlLoop
from rdma_kv._errors import HandshakeError, HandshakeTimeout, PeerLost
from rdma_kv._handshake import (
    UNKNOWN_RANK,
    Connection,
    Occasion,
    PeerRank,
    check_life,
    shake_hands,
)
from rdma_kv._heartbeat import Heartbeat
from rdma_kv._side import Side
from rdma_kv._stats import PeerInfo, PeerStats, Unquiesced, UnquiescedWrite

logger = logging.getLogger("rdma_kv")

_TOTALS = (
    "transfers_done",
    "transfers_failed",
    "blocks_written",
    "bytes_written",
    "runs_written",
)


@dataclass(frozen=True)
class Remote:
    """One connection to a decode side, until it breaks."""

    connection: Connection
    heartbeat: Heartbeat
    peer: _core.Peer  # the core's end of it

    @property
    def is_alive(self) -> bool:
        """False for ever once it broke or its heartbeats stopped."""
        return self.peer.alive


@dataclass
class Target:
    """One address and the connection to it, if any. The lock is held for a whole handshake."""

    host: str
    port: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    remote: Remote | None = None
    peer_rank: PeerRank = UNKNOWN_RANK  # as the last connect() said; reconnecting says it again

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}"


class Peers:
    """All targets of one communicator. Safe from any thread."""

    def __init__(self, loop: ControlLoop, context: zmq.Context[Any], side: Side) -> None:
        self._loop = loop
        self._context = context
        self._side = side
        self._lock = threading.Lock()  # guards all below
        self._targets: dict[tuple[str, int], Target] = {}
        # The same targets under the very arguments that callers use: "80" and 80 are one port.
        self._by_argument: dict[tuple[str, str | int], Target] = {}
        self._totals = dict.fromkeys(_TOTALS, 0)
        self._unquiesced: list[_core.Peer] = []  # given up, and watched on
        self._is_closed = False

    def find(self, host: str, port: str | int) -> Remote | None:
        """The connection to an address, dead or alive."""
        target = self._find(host, port)
        return target.remote if target else None

    def alive(self, host: str, port: str | int) -> _core.Peer | None:
        """The core's end of a live connection: what nearly every write looks for, and quickly."""
        target = self._by_argument.get((host, port))
        remote = target.remote if target is not None else None
        return remote.peer if remote is not None and remote.peer.alive else None

    def require(self, host: str, port: str | int) -> Target:
        """The target of an address.

        Raises:
            PeerLost: It was never connected, or has been disconnected.
        """
        target = self._find(host, port)
        if target is None or target.remote is None:
            raise PeerLost(f"not connected to {host}:{port}; call connect() first")
        return target

    def connect(
        self,
        host: str,
        port: int,
        timeout_s: float,
        peer_rank: PeerRank = UNKNOWN_RANK,
        *,
        epoch: int | None = None,
        is_automatic: bool = False,
    ) -> Remote:
        """The live connection to an address: the one there is, else a new one.

        Args:
            host: Its address.
            port: Its port.
            timeout_s: Seconds until it fails.
            peer_rank: What to take the peer for, if it declares no rank.
            epoch: Take this life of the peer only.
            is_automatic: For a write, not because the user called connect().

        Raises:
            HandshakeError: No agreement.
            PeerLost: The peer is in another life than the one asked for.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            target = self._targets.setdefault((host, port), Target(host, port))
        if not target.lock.acquire(timeout=timeout_s):
            raise HandshakeTimeout(
                f"connect to {target.name}: gave up after {timeout_s:g} s waiting for the "
                "handshake of another thread with it"
            )
        try:
            former = target.remote
            # Looked at anew: a peer that has just restarted must not pass for the one before.
            if former is not None and former.peer.look():
                check_life(target.name, former.connection.epoch, epoch)
                return former
            if is_automatic and former is None:
                raise PeerLost(f"{target.name} was disconnected meanwhile; call connect()")
            ends: tuple[int, ...] = ()
            if former is not None:
                # Not waited for: the welcome comes after decode has ended that link.
                former.peer.lose("connecting anew")
                former.heartbeat.stop("connecting anew")
                ends = (former.connection.link_id,)
            left_s = max(0.0, deadline - time.monotonic())
            target.peer_rank = peer_rank
            occasion = Occasion(ends, is_automatic, epoch)
            connection = shake_hands(
                self._context, self._side, host, port, left_s, peer_rank, occasion
            )
            if former is not None:
                if former.connection.epoch == connection.epoch:
                    former.peer.confirm_quiesced()
                self._watch(former.peer)
            return self._take_over(target, connection)
        finally:
            target.lock.release()

    def revive(
        self, target: Target, timeout_s: float, *, allowed: bool, epoch: int | None
    ) -> Remote:
        """A live connection to a target that is down; `epoch`: in this life of the peer only.

        Raises:
            PeerLost: It is not allowed to connect, that failed, or the peer lives in another epoch;
                the first cause is in it.
        """
        remote = target.remote
        cause = remote.peer.failure() if remote is not None else None
        why = f"{target.name} is down: {cause or 'it was disconnected'}"
        if not allowed or remote is None:
            raise PeerLost(why)
        logger.info("%s; connecting again", why)
        try:
            found = self.connect(
                target.host,
                target.port,
                timeout_s,
                target.peer_rank,
                epoch=epoch,
                is_automatic=True,
            )
        except HandshakeError as error:
            raise PeerLost(f"{why}; connecting again failed: {error}") from error
        if found.connection.epoch != remote.connection.epoch:
            logger.warning(
                "%s restarted: a write connected to its new life by itself. Give writes the epoch "
                "of the decode that granted their blocks (peer_epoch), so that none can land in "
                "blocks of a later life",
                target.name,
            )
        return found

    def disconnect(self, host: str, port: int, timeout_s: float) -> None:
        """Ends a connection in order; an unknown address is no error."""
        with self._lock:
            target = self._targets.get((host, port))
        if target is None:
            return
        if not target.lock.acquire(timeout=timeout_s):
            raise HandshakeTimeout(
                f"disconnect from {target.name}: gave up after {timeout_s:g} s waiting for the "
                "handshake of another thread with it; try again"
            )
        try:
            if target.remote is not None:
                self._end(target.remote, "disconnected", timeout_s)
                self._replace(target, None)
        finally:
            target.lock.release()

    def infos(self) -> list[PeerInfo]:
        """Every peer that has been connected and not disconnected."""
        found = []
        for target in self._all():
            if (remote := target.remote) is not None:
                found.append(
                    PeerInfo(
                        name=target.name,
                        epoch=remote.connection.epoch,
                        transport=remote.connection.transport,
                        reasons=remote.connection.reasons,
                        description=remote.peer.describe(),
                        is_connected=remote.is_alive,
                    )
                )
        return found

    def stats(self) -> tuple[list[PeerStats], dict[str, int]]:
        """Counters of each peer, and of all that ever were."""
        peers = [PeerStats.from_core(t.remote.peer) for t in self._all() if t.remote is not None]
        with self._lock:
            totals = dict(self._totals)
        for name in _TOTALS:
            totals[name] += sum(getattr(peer, name) for peer in peers)
        return peers, totals

    def unquiesced(self) -> list[Unquiesced]:
        """Links that ended and may still write."""
        with self._lock:
            known = [target.remote.peer for target in self._targets.values() if target.remote]
            peers = [*self._unquiesced, *(peer for peer in known if peer not in self._unquiesced)]
        found = []
        for peer in peers:
            if writes := peer.unquiesced():
                found.append(
                    Unquiesced(
                        peer=peer.name,
                        epoch=peer.epoch,
                        transport=peer.transport,
                        reason=str(peer.failure() or "it was closed"),
                        writes=tuple(UnquiescedWrite.from_core(*write) for write in writes),
                    )
                )
        return found

    def close(self, timeout_s: float) -> None:
        """Ends all connections, and every one that a handshake still under way may make."""
        with self._lock:
            self._is_closed = True
        self._side.engine.close_peers(timeout_s)
        for target in self._all():
            if (remote := target.remote) is not None:
                self._end(remote, "closed", 0.0)

    # ---- private

    def _find(self, host: str, port: str | int) -> Target | None:
        try:
            found = self._by_argument.get((host, port))
        except TypeError:  # unhashable: the check below says what is wrong with it
            found = None
        if found is not None:
            return found
        number = check_port(port)
        with self._lock:
            target = self._targets.get((str(host), number))
            if target is not None:
                self._by_argument[host, port] = target
        return target

    def _all(self) -> list[Target]:
        with self._lock:
            return list(self._targets.values())

    def _take_over(self, target: Target, connection: Connection) -> Remote:
        heartbeat = Heartbeat(
            self._loop,
            connection.socket,
            connection.peer,
            self._side.epoch,
            self._side.config.peer_timeout_s,
            connection.patience_s,
        )
        remote = Remote(connection, heartbeat, connection.peer)
        for tag in connection.revoked:  # before the first write can come
            connection.peer.revoke(tag)
        if not self._replace(target, remote):
            self._end(remote, "closed", 0.0)
            raise ValueError("communicator is closed")
        heartbeat.start(connection.early)
        _report(target, connection)
        return remote

    def _end(self, remote: Remote, reason: str, timeout_s: float) -> None:
        remote.peer.close(timeout_s)
        remote.heartbeat.stop(reason)
        self._watch(remote.peer)

    def _watch(self, last: _core.Peer) -> None:
        """Keeps a peer whose link may still write, until it may not."""
        with self._lock:
            self._unquiesced = [peer for peer in self._unquiesced if not peer.is_over]
            if not last.is_over and last not in self._unquiesced:
                self._unquiesced.append(last)

    def _replace(self, target: Target, successor: Remote | None) -> bool:
        """Puts a connection, or none, in the place of one that has ended, whose counters stay.

        In one moment, so that a write beside it sees either of the two. With the target's lock
        held. Returns False, and does nothing, when there is a successor but all is closed.
        """
        last = PeerStats.from_core(target.remote.peer) if target.remote is not None else None
        with self._lock:
            if successor is not None and self._is_closed:
                return False
            target.remote = successor
            if last is not None:
                for name in _TOTALS:
                    self._totals[name] += getattr(last, name)
        return True


def _report(target: Target, connection: Connection) -> None:
    passed_over = "; ".join(f"{name}: {why}" for name, why in connection.reasons.items())
    logger.info(
        "connected to %s over %s (%s). Passed over: %s",
        target.name,
        connection.transport,
        connection.peer.describe(),
        passed_over or "nothing",
    )
