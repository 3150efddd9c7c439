"""Prefill's half of the choice of a transport: which ones to try, in which order, and why not."""

from __future__ import annotations

from rdma_kv import _messages as wire
from rdma_kv._side import NOT_BUILT, STAGED, TRANSPORTS, Side


def candidates(side: Side, welcome: wire.Welcome) -> tuple[list[str], dict[str, str]]:
    """The transports worth trying, best first, and for each other one the reason against it."""
    forced = side.config.transport
    names = TRANSPORTS if forced == "auto" else (forced,)
    reasons = {
        name: f"KVCACHE_TRANSPORT={forced} on prefill" for name in TRANSPORTS if name not in names
    }
    possible = []
    for name in names:
        if why := _why_not(name, side, welcome):
            reasons[name] = why
        else:
            possible.append(name)
    return possible, reasons


def _why_not(name: str, side: Side, welcome: wire.Welcome) -> str:
    if name in NOT_BUILT:
        return NOT_BUILT[name]
    if name in ("cuda_ipc", "cma") and side.host.boot_id != welcome.host.boot_id:
        return "the two sides are on different hosts"
    if name == "cuda_ipc" and side.no_cuda_ipc:
        return f"prefill cannot: {side.no_cuda_ipc}"
    if name in STAGED and (why := side.gpu_reason()):
        return f"prefill cannot: {why}"
    if name == "rdma" and not side.rails:
        return f"prefill cannot: {side.no_rdma}"
    if getattr(welcome.offers, name, None) is None:
        return welcome.reasons.get(name, "decode does not offer it")
    if name == "rdma" and matching_rail(side, welcome) is None:
        ours = ", ".join(sorted({rail.link_layer for rail in side.rails}))
        return f"prefill's NIC speaks {ours}, and no NIC of decode does"
    return ""


def matching_rail(side: Side, welcome: wire.Welcome) -> tuple[int, int] | None:
    """The first pair of rails (prefill's index, decode's) that speak the same link layer."""
    theirs = welcome.offers.rdma.rails if welcome.offers.rdma else []
    for mine, rail in enumerate(side.rails):
        for index, other in enumerate(theirs):
            if rail.link_layer == other.link_layer:
                return mine, index
    return None
