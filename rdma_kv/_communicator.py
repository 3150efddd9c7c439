"""The face: one object per process and cache, on either side."""

from __future__ import annotations

import operator
import os
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import zmq

from rdma_kv import _logging
from rdma_kv._arguments import BlockIds, Role, as_ids, check_host, check_port, check_role, whole
from rdma_kv._config import Config
from rdma_kv._errors import HandshakeError, TransferTimeout
from rdma_kv._handshake import DEFAULT_TIMEOUT_S
from rdma_kv._parts import Parts
from rdma_kv._stats import Departure, Notice, PeerInfo, Stats, Unquiesced
from rdma_kv._tensors import check_rank, describe_cache
from rdma_kv._transfer import Transfer, readable
from rdma_kv._verify import write_verified
from rdma_kv._write_call import (
    Reconnect,
    WriteCall,
    check_epoch,
    check_reconnect,
    check_tag,
    check_timeout,
    order_after,
)

CLOSE_TIMEOUT_S = 5.0
# Nobody watches an interpreter that exits: transfers under way get less time then.
_EXIT_TIMEOUT_S = 1.0

_CLOSED = "communicator is closed"
# All that are open: fork() copies them, but neither their threads nor their connections.
_open: weakref.WeakSet[RDMACommunicator] = weakref.WeakSet()
# What a forked process holds of its parent's: never freed, for freeing it would end what is shared.
_of_the_parent: list[object] = []


class RDMACommunicator:
    """One side of the transfer of paged KV blocks; the prefill side writes into the decode side.

    Safe to call from many threads. Use it in a ``with`` statement, or call :meth:`close`.

    Args:
        role: ``"prefill"`` writes, ``"decode"`` is written to.
        gpu_idx: Picks the NIC, and the CUDA device of bare pointers; -1: no GPU.
        port: Where decode listens, as a number or a string; 0 picks one, and :attr:`port` tells.
        local_key_cache: One tensor or pointer per layer.
        local_value_cache: The same; empty for a key-only cache (MLA).
        block_number: Blocks in each layer.
        block_bytes: Of one block of one layer of K; V has the same.
        key_scales: One tensor or pointer per layer, for quantised caches.
        value_scales: The same.
        scale_block_bytes: Of the scales of one block of one layer.
        block_stride_bytes: From one block to the next; None: as the tensors say, else dense.
        tp_size: Tensor-parallel ranks of this side; 0: takes the peer's word.
        tp_rank: Which of them this is.
        config: Settings; None reads the ``KVCACHE_*`` variables.
        reconnect: Whether a write whose link to the peer is down connects once more by itself,
            within its deadline: True, also when the peer has restarted (but see ``peer_epoch`` of
            :meth:`write_cache_async`); ``"same_life"``, only when it has not; False, never.

    Raises:
        ValueError: An argument is wrong or contradicts another.
        TypeError: A tensor, a number or the config is of the wrong kind.
        ConfigError: A setting is wrong here: port in use, unknown NIC, ...
        TransportUnavailable: KVCACHE_TRANSPORT=rdma, and this machine cannot.
        RegistrationError: KVCACHE_TRANSPORT=rdma, and the cache cannot be registered.
    """

    def __init__(
        self,
        role: Role,
        gpu_idx: int,
        port: str | int,
        local_key_cache: Sequence[Any],
        local_value_cache: Sequence[Any],
        block_number: int,
        block_bytes: int,
        *,
        key_scales: Sequence[Any] | None = None,
        value_scales: Sequence[Any] | None = None,
        scale_block_bytes: int | None = None,
        block_stride_bytes: int | None = None,
        tp_size: int = 1,
        tp_rank: int = 0,
        config: Config | None = None,
        reconnect: Reconnect = True,
    ) -> None:
        self._role = check_role(role)
        number = check_port(port)
        if config is not None and not isinstance(config, Config):
            raise TypeError(
                f"config is a {type(config).__name__}; give a Config, as in "
                "dataclasses.replace(Config.from_env(), transport='tcp'), or None"
            )
        self._config = config if config is not None else Config.from_env()
        _logging.setup(self._config)
        # Keeps the tensors alive: the core only borrows their memory.
        self._cache = describe_cache(
            role=self._role,
            gpu_idx=gpu_idx,
            keys=local_key_cache,
            values=local_value_cache,
            block_number=block_number,
            block_bytes=block_bytes,
            key_scales=key_scales,
            value_scales=value_scales,
            scale_block_bytes=scale_block_bytes,
            block_stride_bytes=block_stride_bytes,
            tp_size=tp_size,
            tp_rank=tp_rank,
        )
        self._layers = self._cache.layers
        self._all_layers = (0, self._layers)
        self._timeout_s = self._config.timeout_s
        # Writes with no option of their own may go to the core without a detour.
        self._is_plain = self._role == "prefill" and not self._config.verify
        self._reconnect = check_reconnect(reconnect)
        self._parts = Parts(self._role, self._config, self._cache, gpu_idx, number)
        self._engine = self._parts.side.engine
        self._peers = self._parts.peers
        self._why_unusable = _CLOSED
        self._finalizer = weakref.finalize(self, self._parts.shut_down, _EXIT_TIMEOUT_S)
        _open.add(self)

    # ---- about itself

    @property
    def role(self) -> Role:
        """``"prefill"`` or ``"decode"``."""
        return self._role

    @property
    def port(self) -> int:
        """Where decode really listens; on prefill the number that was given."""
        return self._parts.port

    @property
    def epoch(self) -> int:
        """Of this life of the communicator; peers see it in notices."""
        return self._engine.epoch

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._config

    # ---- prefill: connections

    def connect(
        self,
        ip: str,
        port: str | int,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        peer_tp_size: int = 0,
        peer_tp_rank: int = 0,
    ) -> bool:
        """Connect to a decode side. Idempotent; a peer that died is replaced at once.

        Args:
            ip: Its address.
            port: Where it listens.
            timeout_s: Seconds until it fails; None: 10.
            peer_tp_size: Tensor-parallel ranks to take decode for, if it declares none itself
                (``tp_size=0``); 0: as many as this side. Must divide this side's.
            peer_tp_rank: Which of them it is.

        Returns:
            True.

        Raises:
            ValueError: An address, port, time or rank that cannot be, or this side is decode or
                closed.
            HandshakeError: No agreement: refused, too late, another version, something else
                listens there; or one of LayoutMismatch, AuthenticationError,
                TransportUnavailable.
        """
        self._check("prefill", "connect")
        host, number = check_host(ip), check_port(port)
        seconds = check_timeout(timeout_s, DEFAULT_TIMEOUT_S)
        if number == 0:
            raise ValueError("port is 0: connect to the port that decode tells by its `port`")
        try:
            peer_rank = check_rank(peer_tp_size, peer_tp_rank, "peer_tp_")
            self._peers.connect(host, number, seconds, peer_rank)
        except (zmq.ContextTerminated, HandshakeError):
            if self._finalizer.alive:
                raise
            raise ValueError(_CLOSED) from None
        return True

    def is_connected(self, ip: str, port: str | int) -> bool:
        """Whether the peer is alive, not merely known."""
        self._check("prefill", "is_connected")
        remote = self._peers.find(ip, port)
        return remote is not None and remote.is_alive

    def disconnect(self, ip: str, port: str | int) -> None:
        """End the connection in order: waits for writes under way. No peer there is no error."""
        self._check("prefill", "disconnect")
        self._peers.disconnect(str(ip), check_port(port), CLOSE_TIMEOUT_S)

    # ---- prefill: writes

    def write_cache(
        self,
        ip: str,
        port: str | int,
        local_block_ids: BlockIds,
        remote_block_ids: BlockIds,
        layer_idx: int | range | None = None,
        *,
        tag: int = 0,
        after: Any = None,
        timeout_s: float | None = None,
        peer_epoch: int | None = None,
        notify: bool = True,
    ) -> None:
        """Write blocks and wait until the peer can read them; see :meth:`write_cache_async`."""
        is_plain = after is None and timeout_s is None and peer_epoch is None and notify is True
        is_known = type(ip) is str and type(port) in (int, str)
        if is_plain and is_known and self._is_plain and self._finalizer.alive:
            peer = self._peers.alive(ip, port)
            if peer is not None:
                peer.write_now(
                    as_ids(local_block_ids, "local_block_ids"),
                    as_ids(remote_block_ids, "remote_block_ids"),
                    *(self._all_layers if layer_idx is None else self._check_layers(layer_idx)),
                    check_tag(tag, least=0),
                    self._timeout_s,
                )
                return
        write = self._prepare(
            ip,
            port,
            local_block_ids,
            remote_block_ids,
            layer_idx,
            tag,
            after,
            timeout_s,
            peer_epoch,
            notify,
        )
        if self._config.verify:
            write_verified(self._parts.side, write.remote(), *write.arguments(), self)
            return
        write.remote().peer.write_wait(*write.arguments())

    def write_cache_async(
        self,
        ip: str,
        port: str | int,
        local_block_ids: BlockIds,
        remote_block_ids: BlockIds,
        layer_idx: int | range | None = None,
        *,
        tag: int = 0,
        after: Any = None,
        timeout_s: float | None = None,
        peer_epoch: int | None = None,
        notify: bool = True,
    ) -> Transfer:
        """Write local blocks into blocks of a connected decode side.

        Returns at once, the bytes move in the background; only a peer that is down is connected
        to again first, within the deadline.

        Args:
            ip: The peer's address, as given to :meth:`connect`.
            port: Its port, as given to :meth:`connect`.
            local_block_ids: Integers in a list, tuple, NumPy or torch array (int32, int64).
            remote_block_ids: Where each of them goes; as many, none twice. Both may be empty.
            layer_idx: One layer, a range of layers with step 1, or None for all layers.
            tag: 1 to 2**32-1: names what the write belongs to. Decode gets a notice with it once
                everything is visible, and may revoke it; 0: neither.
            after: A torch.cuda.Event, a stream, or the handle of a CUevent: the blocks are read
                when that has come, or all that the stream holds now is done. Blocks that a GPU
                copies itself (``cuda_ipc``) wait on the GPU, and no thread does; for others, and
                for anything else with a ``synchronize`` method, this call waits.
            timeout_s: Seconds from now until the write fails; None: KVCACHE_TIMEOUT_S.
            peer_epoch: ``epoch`` of the decode that granted the remote blocks. When that has
                restarted the write fails: its blocks belong to somebody else now. None: whichever
                life the peer is in.
            notify: False: the tag sends no notice. For all but the last write of a request, so
                that decode may revoke all of them by their tag.

        Returns:
            A handle to wait for, await or cancel.

        Raises:
            ValueError: An id, a layer or the tag is out of range, or a destination comes twice.
            TypeError: Ids are not integers of 32 or 64 bits.
            PeerLost: The peer was never connected, is down and could not be reached again, has
                revoked what it granted, or is in another life than `peer_epoch`: then connect()
                first, and write to blocks that it grants anew.
            TransferRevoked: Decode has revoked the tag.
        """
        write = self._prepare(
            ip,
            port,
            local_block_ids,
            remote_block_ids,
            layer_idx,
            tag,
            after,
            timeout_s,
            peer_epoch,
            notify,
        )
        if self._config.verify:
            return write_verified(self._parts.side, write.remote(), *write.arguments(), self)
        return Transfer(write.remote().peer.write(*write.arguments()), self)

    # ---- decode: notices

    def received(self, tag: int, timeout_s: float | None = None, count: int = 1) -> None:
        """Wait until ``count`` writes with a tag are visible here, and take their notices.

        Args:
            tag: As given to the writes, from 1.
            timeout_s: Seconds to wait; None: KVCACHE_TIMEOUT_S.
            count: How many; none is taken before all are here.

        Raises:
            TransferTimeout: They did not come in time; says how many did, and who is connected.
            TransferRevoked: This side has revoked the tag, before the call or during it.
        """
        self._check("decode", "received")
        tag = check_tag(tag, least=1)
        count = whole("count", count, 1)
        seconds = check_timeout(timeout_s, self._config.timeout_s)
        here = self._engine.wait_notices(tag, count, seconds)
        if here < count:
            names = self._parts.connected_names()
            raise TransferTimeout(
                f"received {here} of {count} notices with tag {tag} within {seconds:g} s; "
                + (f"connected: {', '.join(names)}" if names else "no peer is connected")
            )

    def poll_received(self) -> list[Notice]:
        """Take all notices that wait, oldest first; never blocks."""
        self._check("decode", "poll_received")
        return [Notice(*notice) for notice in self._engine.take_notices()]

    def fileno(self) -> int:
        """A descriptor that is readable while notices wait, for select and the like."""
        self._check("decode", "fileno")
        return self._engine.notice_fd()

    async def notices(self) -> AsyncIterator[Notice]:
        """Every notice as it comes, in asyncio; ends when the communicator is closed."""
        self._check("decode", "notices")
        while self._finalizer.alive:
            for notice in self.poll_received():
                yield notice
            if self._finalizer.alive:
                await readable(self._engine.notice_fd())

    def __aiter__(self) -> AsyncIterator[Notice]:
        return self.notices()

    # ---- decode: taking back

    def revoke(
        self, what: int | str | PeerInfo, *, peer: str | None = None, timeout_s: float = 5.0
    ) -> None:
        """Take back what was granted, and return once nothing of it can land any more.

        For requests that are aborted: their blocks may be given to others as soon as this returns.

        A tag: every write that carries it is stopped at its sender, later ones fail there with
        TransferRevoked, and its notices are dropped, until :meth:`allow`. Writes without that tag
        go on. A peer that does not answer loses its links. The last 65536 revoked tags are kept.

        A peer, or by its name all communicators of that process: its links are ended. It may
        come back, but only by ``connect()``: a write of it
        fails with PeerLost instead of reconnecting by itself.

        Args:
            what: A tag, the name of a peer as in :meth:`peers` and in notices, or a PeerInfo.
            peer: With a tag: ask only the peer of that name, and rely on the others not to use it.
            timeout_s: Seconds until it gives up; a peer that is well needs milliseconds.

        Raises:
            NotQuiesced: Something may still land: the peer writes by itself (cma) and does not
                react. :meth:`unquiesced` lists it until it is settled.
            ValueError: No peer of that name was ever here, or the tag is out of range.
        """
        self._check("decode", "revoke")
        seconds = check_timeout(timeout_s, 5.0)
        if peer is not None and isinstance(what, (str, PeerInfo)):
            raise TypeError("peer narrows a tag; revoke was given a peer already")
        if isinstance(what, PeerInfo):
            self._parts.revoker.revoke_peer(what.name, what.epoch, seconds)
        elif isinstance(what, str):
            self._parts.revoker.revoke_peer(what, None, seconds)
        elif isinstance(what, Notice):
            raise TypeError("revoke was given a Notice; give its tag, or its peer")
        else:
            self._parts.revoker.revoke_tag(check_tag(what, least=1), peer, seconds)

    def allow(self, tag: int, *, timeout_s: float = 5.0) -> None:
        """Take writes with a revoked tag again; returns once the peers know. Idempotent."""
        self._check("decode", "allow")
        seconds = check_timeout(timeout_s, 5.0)
        self._parts.revoker.allow_tag(check_tag(tag, least=1), seconds)

    def poll_departed(self) -> list[Departure]:
        """Peers that went since the last call, oldest first, each with the reason.

        Their links have ended, but see ``Departure.is_quiesced``. Whoever is told of here comes
        back by connect() only: its writes fail with PeerLost until then, so its blocks can be
        reused. A peer that has come back already is not told of. The last 1024 are kept.
        """
        self._check("decode", "poll_departed")
        return self._parts.take_departures()

    # ---- both

    def unquiesced(self) -> list[Unquiesced]:
        """What has failed or was revoked and may still land; empty nearly always.

        Entries go by themselves as soon as the peer confirms or its process ends.
        """
        self._check(None, "unquiesced")
        if self._role == "prefill":
            return self._peers.unquiesced()
        return [
            Unquiesced(peer=name, epoch=epoch, transport=transport, reason=why)
            for _, transport, name, epoch, why in self._engine.unquiesced_links()
        ]

    def peers(self) -> list[PeerInfo]:
        """Who is connected, over what, and why not over something better."""
        self._check(None, "peers")
        if self._role == "prefill":
            return self._peers.infos()
        return [
            PeerInfo(name, epoch, transport)
            for _, transport, name, epoch, is_open in self._engine.inbound_links()
            if is_open
        ]

    def stats(self) -> Stats:
        """A snapshot of all counters."""
        self._check(None, "stats")
        peers, totals = self._peers.stats()
        inbound = self._engine.inbound_links() if self._role == "decode" else []
        return Stats(
            role=self._role,
            epoch=self.epoch,
            inbound_links=sum(is_open for *_, is_open in inbound),
            registered_bytes=sum(rail.registered_bytes for rail in self._parts.side.rails),
            peers=tuple(peers),
            **totals,
        )

    def close(self, *, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """End everything: waits that long for writes under way, says goodbye. Idempotent."""
        self._finalizer.detach()
        self._parts.shut_down(timeout_s)

    def __enter__(self) -> RDMACommunicator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else ", closed"
        return f"<RDMACommunicator {self._role}, port {self.port}{state}>"

    # ---- private

    def _check(self, role: Role | None, method: str) -> None:
        if not self._finalizer.alive:
            raise ValueError(self._why_unusable)
        if role is not None and role != self._role:
            raise ValueError(f"{method} is for role {role!r}; this side is {self._role!r}")

    def _leave_to_the_parent(self) -> None:
        """In a forked process: its copy shares the connections, and no thread serves them."""
        self._why_unusable = (
            f"communicator was made by process {self._parts.pid} and does not survive fork(); "
            "make one in this process, or start it with the method 'spawn'"
        )
        if self._finalizer.detach() is not None:
            _of_the_parent.append(self._parts)

    def _prepare(
        self,
        ip: str,
        port: str | int,
        local: BlockIds,
        remote: BlockIds,
        layer_idx: int | range | None,
        tag: int,
        after: Any,
        timeout_s: float | None,
        peer_epoch: int | None,
        notify: bool,
    ) -> WriteCall:
        self._check("prefill", "write_cache")
        return WriteCall(
            self._peers,
            self._peers.require(ip, port),
            as_ids(local, "local_block_ids"),
            as_ids(remote, "remote_block_ids"),
            *self._check_layers(layer_idx),
            check_tag(tag, least=0),
            bool(notify),
            order_after(after),
            time.monotonic() + check_timeout(timeout_s, self._config.timeout_s),
            self._reconnect,
            check_epoch(peer_epoch),
        )

    def _check_layers(self, layer_idx: int | range | None) -> tuple[int, int]:
        if layer_idx is None:
            return 0, self._layers
        if isinstance(layer_idx, range):
            if layer_idx.step != 1:
                raise ValueError(f"layer_idx is {layer_idx}; its step must be 1")
            first, count = layer_idx.start, len(layer_idx)
            if count == 0:
                raise ValueError(f"layer_idx is {layer_idx}, which holds no layer; None: all")
        else:
            if isinstance(layer_idx, bool) or not hasattr(layer_idx, "__index__"):
                raise TypeError(f"layer_idx is {layer_idx!r}; give an int, a range or None")
            first, count = operator.index(layer_idx), 1
        if first < 0 or first + count > self._layers:
            raise ValueError(
                f"layer_idx is {layer_idx}; this cache has layers 0 to {self._layers - 1}"
            )
        return first, count


def _after_fork() -> None:
    for communicator in list(_open):
        communicator._leave_to_the_parent()


os.register_at_fork(after_in_child=_after_fork)
