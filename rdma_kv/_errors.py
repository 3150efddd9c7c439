"""Every exception of rdma_kv.

::

    RdmaKvError
    ├── ConfigError
    ├── RegistrationError
    ├── HandshakeError
    │   ├── LayoutMismatch
    │   ├── AuthenticationError
    │   ├── HandshakeTimeout
    │   └── TransportUnavailable
    └── TransferError
        ├── PeerLost
        ├── TransferTimeout
        ├── TransferCancelled
        ├── TransferRevoked
        └── NotQuiesced

Bad arguments are plain ``ValueError`` and ``TypeError``: nothing has moved then.
"""

# ruff: noqa: N818 - the names say what happened; `Error` is for those that are families

from __future__ import annotations


class RdmaKvError(Exception):
    """Base of everything that rdma_kv raises on purpose; catch it to catch them all."""


class ConfigError(RdmaKvError):
    """A setting cannot be used: its value is not allowed, or this machine lacks what it names.

    Raised while a communicator is made. The message names the variable, its value and what is
    allowed: correct the environment or the :class:`Config` and start again.
    """


class RegistrationError(RdmaKvError):
    """The cache could not be made reachable for a NIC, or for the peer's process.

    Raised while a communicator is made. Mostly a limit of locked memory (``ulimit -l``) or a
    missing kernel module; the message says which. Another transport may do without.
    """


class HandshakeError(RdmaKvError):
    """No agreement with the peer: it is not there, speaks something else, or ended the talk.

    Raised by ``connect``. Nothing has moved. Check address and port, and that decode runs; a
    retry is safe at any time.
    """


class LayoutMismatch(HandshakeError):
    """The two caches differ in a way that would corrupt: layers, block bytes, dtype, TP slice.

    Raised by ``connect``. The message holds both values. A retry does not help: start both sides
    with the same model and cache settings.
    """


class AuthenticationError(HandshakeError):
    """The peer does not hold the same secret, or only one side asks for one.

    Raised by ``connect``. Give both sides the same ``KVCACHE_AUTH_KEY_FILE``.
    """


class HandshakeTimeout(HandshakeError):
    """The peer did not answer in time; the message says what was waited for.

    Raised by ``connect``. Mostly a firewall that drops packets, or a peer that is still loading.
    """


class TransportUnavailable(HandshakeError):
    """The transport that was asked for cannot run between these two processes.

    The message says why in one sentence. Choose another ``KVCACHE_TRANSPORT``, or ``auto``, which
    takes the first one that both sides can open.
    """


class TransferError(RdmaKvError):
    """A write failed. None of its bytes can land any more, unless it is :class:`NotQuiesced`.

    The peer's blocks that it named hold old bytes, new bytes or both: write them again, or let
    decode recompute them.
    """


class PeerLost(TransferError):
    """The peer's process, host or path went away, before or during a write.

    ``connect`` again once it is back; a restarted peer is accepted at once.
    """


class TransferTimeout(TransferError):
    """A write missed its deadline and was stopped.

    The message says what it waited for. Raise ``timeout_s`` (``KVCACHE_TIMEOUT_S``) only when the
    path is known to be slow; otherwise look for what stalls the peer.
    """


class TransferCancelled(TransferError):
    """The caller cancelled the write in time; it was stopped."""


class TransferRevoked(TransferError):
    """Decode has revoked the write's tag; what was under way was stopped, later ones are refused.

    The request was aborted there. Drop it: its blocks may belong to another request already.
    """


class NotQuiesced(TransferError):
    """A write failed and it could not be made sure that none of its bytes still land.

    On decode: a revoked peer did not confirm that it has stopped. Do not reuse the blocks, on
    either side, while ``unquiesced()`` lists them.
    """


def install() -> None:
    """Make the core raise these exceptions. Called once, when the package is imported."""
    from rdma_kv import _core

    _core.set_error_types(
        {
            "config": ConfigError,
            "registration": RegistrationError,
            "handshake": HandshakeError,
            "layout_mismatch": LayoutMismatch,
            "authentication": AuthenticationError,
            "unavailable": TransportUnavailable,
            "transfer": TransferError,
            "peer_lost": PeerLost,
            "timeout": TransferTimeout,
            "cancelled": TransferCancelled,
            "revoked": TransferRevoked,
            "not_quiesced": NotQuiesced,
        }
    )
