"""The face of KVTransferManager over ``rdma_kv``: translates, and decides nothing."""

from __future__ import annotations

import logging
from typing import Any, overload

from rdma_comm._generations import Arguments, parse
from rdma_comm._status import ConnectStatus
from rdma_kv import RDMACommunicator as Native
from rdma_kv._arguments import whole
from rdma_kv._errors import HandshakeTimeout, RdmaKvError, TransferTimeout

_logger = logging.getLogger("rdma_kv")

# What a call of ours may fail with; anything else is a bug, and its traceback is worth more than
# a status code.
_BAD_ARGUMENTS = (ValueError, TypeError)
_FAILURES = (RdmaKvError, OSError)


class RDMACommunicator:
    """One side's KV cache, and the peers that it writes to or is written to by.

    Safe from any thread. ``native`` is the communicator underneath, for what this face lacks:
    asynchronous writes, notices, statistics.
    """

    @overload
    def __init__(
        self,
        role: str,
        gpu_idx: int,
        port: str | int,
        local_key_cache: Any,
        local_value_cache: Any,
        block_number: int,
        block_bytes: int,
        prefill_tp_size: int = ...,
        prefill_tp_idx: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        splitwise_role: str,
        gpu_idx: int,
        port: str | int,
        key_cache_ptrs: Any,
        value_cache_ptrs: Any,
        block_number: int,
        block_bytes: int,
        key_scale_ptrs: Any = ...,
        value_scale_ptrs: Any = ...,
        scale_block_bytes: int = ...,
        prefill_tp_size: int = ...,
        prefill_tp_idx: int = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments and make the cache reachable; decode listens from now on.

        Raises:
            TypeError: The arguments are of no generation.
            ValueError: They contradict each other, or a tensor contradicts one.
            RdmaKvError: A setting cannot be used, or the memory cannot be registered.
        """
        self._given = parse(args, kwargs)
        # Its writes carry no epoch, and its engines connect before they write to a restarted peer.
        self._native = Native(**_native_arguments(self._given), reconnect="same_life")

    def connect(self, dst_ip: str, dst_port: str | int, dst_tp_size: int = 0) -> ConnectStatus:
        """Connect to a decode side; returns at once when already connected.

        Args:
            dst_ip: Its address.
            dst_port: The port on which it listens.
            dst_tp_size: Its tensor-parallel size; 0: the same as ours.

        Returns:
            0, which is also true, or a status that is false; the log has the reason.
        """
        try:
            rank = self._rank_of_peer(dst_tp_size)
            self._native.connect(dst_ip, str(dst_port), **rank)
        except _BAD_ARGUMENTS as error:
            return self._failed_to_connect(ConnectStatus.BAD_PARAMETERS, dst_ip, dst_port, error)
        except _FAILURES as error:
            is_timeout = isinstance(error, (HandshakeTimeout, TransferTimeout, TimeoutError))
            status = ConnectStatus.TIMEOUT if is_timeout else ConnectStatus.ERROR
            return self._failed_to_connect(status, dst_ip, dst_port, error)
        return ConnectStatus.CONNECTED

    def is_connected(self, dst_ip: str, dst_port: str | int) -> bool:
        """Whether the peer is connected and alive."""
        try:
            return self._native.is_connected(dst_ip, str(dst_port))
        except (*_BAD_ARGUMENTS, *_FAILURES):
            return False

    def write_cache(
        self,
        dst_ip: str,
        dst_port: str | int,
        local_block_ids: Any,
        remote_block_ids: Any,
        layer_idx: int,
    ) -> int:
        """Write blocks of one layer into the peer's; returns when its GPU can read them.

        Returns:
            0, or -1: no byte of it can land any more then, and the log has the reason.
        """
        try:
            if len(local_block_ids) == 0 and len(remote_block_ids) == 0:
                return 0
            self._native.write_cache(
                dst_ip, str(dst_port), local_block_ids, remote_block_ids, layer_idx
            )
        except (*_BAD_ARGUMENTS, *_FAILURES) as error:
            _logger.error(
                "write_cache to %s:%s, layer %s: %s", dst_ip, dst_port, layer_idx, _in_words(error)
            )
            return -1
        return 0

    @property
    def native(self) -> Native:
        """The communicator of ``rdma_kv`` underneath."""
        return self._native

    @property
    def port(self) -> int:
        """Where decode listens; tells which one was picked for ``"0"``."""
        return int(self._native.port)

    def close(self) -> None:
        """Let go of peers, ports and registered memory. Idempotent."""
        self._native.close()

    def _failed_to_connect(
        self, status: ConnectStatus, ip: str, port: str | int, error: Exception
    ) -> ConnectStatus:
        _logger.error("connect to %s:%s: %s (status %d)", ip, port, _in_words(error), int(status))
        return status

    def _rank_of_peer(self, dst_tp_size: int) -> dict[str, int]:
        """The tensor-parallel rank of a peer that does not declare its own.

        Decode sides of this face never do: prefill's word counts.
        """
        size, rank = self._given.prefill_tp_size, self._given.prefill_tp_idx
        peer_size = whole("dst_tp_size", dst_tp_size, 0)
        # Said of nothing, a silent peer counts as having our own size and rank. So it should with
        # more ranks than ours: several of them share our heads and the address does not tell which
        # one this is, so only whole blocks can be right (replicated heads, MLA), and parts are
        # refused. A peer that declares its rank gets its part anyway.
        if peer_size == 0 or peer_size >= size:
            return {}
        if size % peer_size != 0:
            raise ValueError(
                f"dst_tp_size={peer_size} does not divide prefill_tp_size={size}: "
                "blocks cannot be shared out by heads"
            )
        return {"peer_tp_size": peer_size, "peer_tp_rank": rank * peer_size // size}


def _native_arguments(given: Arguments) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "role": given.role,
        "gpu_idx": given.gpu_idx,
        "port": given.port,
        "local_key_cache": given.key_cache,
        "local_value_cache": given.value_cache,
        "block_number": given.block_number,
        "block_bytes": given.block_bytes,
        "tp_size": given.prefill_tp_size,
        "tp_rank": given.prefill_tp_idx,
    }
    if given.role == "decode":
        arguments |= {"tp_size": 0, "tp_rank": 0}  # not declared
    if given.has_scales:
        arguments |= {
            "key_scales": given.key_scales,
            "value_scales": given.value_scales,
            "scale_block_bytes": given.scale_block_bytes,
        }
    return arguments


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
