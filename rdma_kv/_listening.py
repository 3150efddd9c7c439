"""Decode's sockets: who may connect to them, and from where."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from rdma_kv import _messages as wire
from rdma_kv._auth import Gatekeeper
from rdma_kv._control import GOODBYE_LINGER_MS, ControlLoop
from rdma_kv._errors import ConfigError
from rdma_kv._network import endpoint, is_loopback
from rdma_kv._revoker import Revoker
from rdma_kv._sessions import Sessions
from rdma_kv._side import Side

logger = logging.getLogger("rdma_kv")

# Messages that one peer may have waiting, each way; with the bound on their size a bound on memory.
_QUEUE = 16
_GREETING_MS = 10_000

_warned_of: set[str] = set()


class Listening:
    """Control port and data port of one decode side. Made before the control thread runs."""

    def __init__(
        self, loop: ControlLoop, context: zmq.Context[Any], side: Side, address: str, port: int
    ) -> None:
        self._loop = loop
        self._gatekeeper = Gatekeeper(context, side.keys)
        loop.watch(self._gatekeeper.socket, self._gatekeeper.on_readable)
        socket: zmq.Socket[Any] = context.socket(zmq.ROUTER)
        try:
            self.port = _bind(socket, side, address, port)
            data_port = side.engine.listen(address, 0)
            self.sessions = Sessions(loop, socket, side, data_port)
        except BaseException:
            socket.close(linger=0)
            self.close_gate()
            raise
        loop.watch(socket, self.sessions.on_readable)
        self._ended_fd = side.engine.ended_links_fd()
        loop.watch(self._ended_fd, self.sessions.on_links_ended)
        self.revoker = Revoker(loop, side.engine, self.sessions)
        if not side.keys and not is_loopback(address):
            _warn_of_open_port(address)

    def close(self) -> None:
        """On the control thread."""
        self._loop.forget(self._ended_fd)
        self.sessions.close()
        self.close_gate()

    def close_gate(self) -> None:
        """After the listening socket, or ZeroMQ would let everybody in."""
        self._loop.forget(self._gatekeeper.socket)
        self._gatekeeper.socket.close()


def _bind(socket: zmq.Socket[Any], side: Side, address: str, port: int) -> int:
    socket.linger = GOODBYE_LINGER_MS
    socket.maxmsgsize = wire.MOST_REQUEST_BYTES
    socket.rcvhwm = socket.sndhwm = _QUEUE
    socket.handshake_ivl = _GREETING_MS
    socket.zap_domain = b"rdma_kv"  # without one the gatekeeper is not asked about keyless peers
    # A peer whose host is gone closes nothing. Not ZeroMQ's own heartbeats: a peer that hangs up
    # while its messages wait makes them abort the process (libzmq 4.3.5, stream_engine_base.cpp).
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = max(1, round(side.config.peer_timeout_s))
    socket.tcp_keepalive_intvl = 1
    socket.tcp_keepalive_cnt = 5
    if keys := side.keys:
        socket.curve_server = True
        socket.curve_secretkey = keys.listening.secret
        socket.curve_publickey = keys.listening.public
    try:
        socket.bind(endpoint(address, port or "*"))
    except zmq.ZMQError as error:
        what = "it is in use" if error.errno == zmq.EADDRINUSE else str(error.strerror)
        raise ConfigError(
            f"cannot listen on port {port} of {address}: {what}; "
            "choose another port, or 0 for any free one"
        ) from error
    return int(bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rpartition(b":")[2])


def _warn_of_open_port(address: str) -> None:
    if address in _warned_of:
        return
    _warned_of.add(address)
    logger.warning(
        "decode listens on %s without a secret: whoever reaches it can write to its cache; "
        "set KVCACHE_AUTH_KEY_FILE on both sides",
        "all interfaces" if address == "0.0.0.0" else address,
    )
