"""Writes under KVCACHE_VERIFY: both sides sum every block before decode is told of the write."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rdma_kv import _messages as wire
from rdma_kv._arguments import BlockIds
from rdma_kv._checksums import BlockSums
from rdma_kv._errors import PeerLost, TransferError, TransferTimeout
from rdma_kv._peers import Remote
from rdma_kv._side import Side
from rdma_kv._transfer import Transfer
from rdma_kv._write_call import After

_KINDS = ("key", "value", "key scale", "value scale")


def write_verified(
    side: Side,
    remote: Remote,
    local: BlockIds,
    remote_ids: BlockIds,
    first_layer: int,
    layer_count: int,
    tag: int,
    timeout_s: float,
    notify: bool,
    after: After,
    owner: object,
) -> Transfer:
    """Writes without a notice, compares both sides' checksums, then sends the notice alone.

    Returns once that is done: it is for hunting corruption, not for speed.

    Raises:
        TransferError: A block differs at the peer; says which layer, tensor and blocks.
    """
    deadline = time.monotonic() + timeout_s
    core = remote.peer.write(
        local, remote_ids, first_layer, layer_count, tag, timeout_s, False, after
    )
    core.wait()
    sums = BlockSums.on_prefill(side.engine.layout, remote.connection.geometry)
    kinds = [kind for kind, _, _ in side.geometry.tensors]
    sources, targets = [int(i) for i in local], [int(i) for i in remote_ids]
    for layer in range(first_layer, first_layer + layer_count):
        for tensor, kind in enumerate(kinds):
            for start in range(0, len(sources), wire.MOST_VERIFIED_BLOCKS):
                part = slice(start, start + wire.MOST_VERIFIED_BLOCKS)
                checksums = sums.of(layer, tensor, sources[part])
                bad = _ask(remote, layer, tensor, targets[part], checksums, deadline)
                if bad:
                    raise TransferError(
                        f"KVCACHE_VERIFY: {len(bad)} blocks at {remote.peer.name} differ from "
                        f"what was written over {remote.peer.transport}: layer {layer}, "
                        f"{_KINDS[kind]}, blocks {_shown(bad)}; or the source changed meanwhile"
                    )
    if tag and notify:
        left_s = max(0.0, deadline - time.monotonic())
        remote.peer.write((), (), first_layer, layer_count, tag, left_s).wait()
    return Transfer(core, owner)


def _ask(
    remote: Remote,
    layer: int,
    tensor: int,
    blocks: list[int],
    checksums: list[int],
    deadline: float,
) -> Sequence[int]:
    left_s = max(0.0, deadline - time.monotonic())
    answer = remote.heartbeat.ask(layer, tensor, blocks, checksums, left_s)
    if isinstance(answer, wire.Verified):
        return answer.bad_blocks
    if isinstance(answer, wire.Refused):
        raise TransferError(f"KVCACHE_VERIFY: {remote.peer.name} refused: {answer.reason}")
    if not remote.is_alive:
        raise PeerLost(f"KVCACHE_VERIFY: {remote.peer.name} went away: {remote.peer.failure()}")
    raise TransferTimeout(
        f"KVCACHE_VERIFY: waited for {remote.peer.name} to compare layer {layer} "
        "until the deadline of the write"
    )


def _shown(blocks: Sequence[int]) -> str:
    shown = ", ".join(map(str, blocks[:8]))
    return shown if len(blocks) <= 8 else f"{shown}, ..."
