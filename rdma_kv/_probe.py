"""How prefill finds out that a process on its host is the decode side it talks to.

With the cma transport prefill writes wherever decode says: into which process, and at which
addresses. So decode has to prove that the process is itself, and that it means these addresses: it
puts a digest of both into its memory, and prefill, which computes the same, looks for it there. A
liar would have to get the digest of its lies into the memory of its victim.
"""

from __future__ import annotations

import ctypes
import hashlib

import msgspec

from rdma_kv import _messages as wire

_NONCE_BYTES = 16


def nonce_for(prefill_epoch: int, epoch: int, geometry: wire.Geometry, bases: list[int]) -> bytes:
    """What must be in decode's memory; from the welcome, and what prefill said before."""
    said = msgspec.msgpack.encode((prefill_epoch, epoch, geometry, bases))
    return hashlib.blake2b(said, digest_size=_NONCE_BYTES, person=b"rdma_kv probe").digest()


class Probe:
    """A nonce in this process's memory, for as long as this object lives."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce
        self._memory = ctypes.create_string_buffer(nonce, len(nonce))

    @property
    def address(self) -> int:
        """Where it is."""
        return ctypes.addressof(self._memory)
