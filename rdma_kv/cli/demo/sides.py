"""What both sides do alike: open a communicator over a paged cache."""

from __future__ import annotations

import os
from typing import Literal

from rdma_kv import Config, RDMACommunicator

from .paging import PagedCache
from .settings import Settings


def open_communicator(
    role: Literal["prefill", "decode"], port: str, cache: PagedCache, settings: Settings
) -> RDMACommunicator:
    environment = {**os.environ, "KVCACHE_TRANSPORT": settings.transport}
    return RDMACommunicator(
        role=role,
        gpu_idx=-1,  # host memory
        port=port,
        local_key_cache=cache.keys,
        local_value_cache=cache.values,
        block_number=len(cache.keys[0]),
        block_bytes=settings.block_bytes,
        config=Config.from_env(environment),
    )
