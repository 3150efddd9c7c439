"""Moves paged KV cache blocks between LLM prefill and decode processes.

The prefill side names local and remote block ids, and the bytes appear in the decode side's
blocks: over RDMA, through another process's memory, or over TCP. See :class:`RDMACommunicator`.
"""

from rdma_kv._communicator import RDMACommunicator
from rdma_kv._config import Config
from rdma_kv._errors import (
    AuthenticationError,
    ConfigError,
    HandshakeError,
    HandshakeTimeout,
    LayoutMismatch,
    NotQuiesced,
    PeerLost,
    RdmaKvError,
    RegistrationError,
    TransferCancelled,
    TransferError,
    TransferRevoked,
    TransferTimeout,
    TransportUnavailable,
)
from rdma_kv._errors import install as _install_errors
from rdma_kv._stats import (
    Departure,
    Notice,
    PeerInfo,
    PeerStats,
    Stats,
    TransferStats,
    Unquiesced,
    UnquiescedWrite,
)
from rdma_kv._transfer import Transfer

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Config",
    "ConfigError",
    "Departure",
    "HandshakeError",
    "HandshakeTimeout",
    "LayoutMismatch",
    "NotQuiesced",
    "Notice",
    "PeerInfo",
    "PeerLost",
    "PeerStats",
    "RDMACommunicator",
    "RdmaKvError",
    "RegistrationError",
    "Stats",
    "Transfer",
    "TransferCancelled",
    "TransferError",
    "TransferRevoked",
    "TransferStats",
    "TransferTimeout",
    "TransportUnavailable",
    "Unquiesced",
    "UnquiescedWrite",
    "__version__",
]

_install_errors()
