"""What both sides do alike: open a communicator over a paged cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from rdma_kv import Config, RDMACommunicator

from .settings import Settings


class Pools(Protocol):
    """K and V of every layer, in NumPy or torch."""

    @property
    def keys(self) -> Sequence[Any]: ...

    @property
    def values(self) -> Sequence[Any]: ...


def open_communicator(
    role: Literal["prefill", "decode"],
    port: str,
    cache: Pools,
    settings: Settings,
    gpu_idx: int = -1,  # host memory
) -> RDMACommunicator:
    environment = {**os.environ, "KVCACHE_TRANSPORT": settings.transport}
    return RDMACommunicator(
        role=role,
        gpu_idx=gpu_idx,
        port=port,
        local_key_cache=cache.keys,
        local_value_cache=cache.values,
        block_number=len(cache.keys[0]),
        block_bytes=settings.block_bytes,
        config=Config.from_env(environment),
    )
