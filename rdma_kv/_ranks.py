"""Tensor-parallel ranks of a decode side that does not declare its own: prefill's word counts."""

from __future__ import annotations

from msgspec.structs import replace

from rdma_kv._errors import LayoutMismatch
from rdma_kv._messages import Geometry


def as_seen_by_decode(prefill: Geometry, peer_tp_size: int, peer_tp_rank: int) -> Geometry:
    """Prefill's geometry for a decode rank that counts itself as the only one of its side.

    Prefill ranks that share one decode rank become the ranks of a prefill of just that many: of
    ranks 0 to 3, decode rank 1 of 2 sees 2 and 3, as ranks 0 and 1 of 2.

    Args:
        prefill: As it was sent.
        peer_tp_size: How many ranks prefill takes decode to have; 0: as many as itself.
        peer_tp_rank: Which of them it takes this one for.

    Raises:
        LayoutMismatch: They do not divide prefill's ranks, or share no head with this one.
    """
    if peer_tp_size == 0 or prefill.tp_size == 0:
        return replace(prefill, tp_size=min(prefill.tp_size, 1), tp_rank=0)
    if prefill.tp_size % peer_tp_size != 0:
        raise LayoutMismatch(
            f"prefill has {prefill.tp_size} tensor-parallel ranks and takes decode to have "
            f"{peer_tp_size}, which does not divide them; give tp_size and tp_rank on decode"
        )
    share = prefill.tp_size // peer_tp_size
    rank = prefill.tp_rank - peer_tp_rank * share
    if not 0 <= rank < share:
        raise LayoutMismatch(
            f"prefill rank {prefill.tp_rank} of {prefill.tp_size} shares no head with decode rank "
            f"{peer_tp_rank} of {peer_tp_size}, for which it takes this side"
        )
    return replace(prefill, tp_size=share, tp_rank=rank)


def as_seen_by_prefill(
    decode: Geometry, ours: Geometry, peer_tp_size: int, peer_tp_rank: int
) -> Geometry:
    """Decode's geometry with the rank filled in that prefill takes it for; a declared one stays."""
    if decode.tp_size != 0:
        return decode
    if peer_tp_size == 0:
        return replace(decode, tp_size=ours.tp_size, tp_rank=ours.tp_rank)
    return replace(decode, tp_size=peer_tp_size, tp_rank=peer_tp_rank)
