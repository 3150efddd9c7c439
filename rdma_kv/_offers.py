"""Decode's half of the choice of a transport: what it offers, and how it accepts a link."""

from __future__ import annotations

from dataclasses import dataclass

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._errors import RdmaKvError, TransportUnavailable
from rdma_kv._side import NOT_BUILT, Side, from_wire_endpoint, staged_streams, to_wire_endpoint


@dataclass(frozen=True)
class Offering:
    """What decode offers to everybody, and why not the rest."""

    offers: wire.Offers
    reasons: dict[str, str]


def make_offering(side: Side) -> Offering:
    """Asks every transport once; the answers do not depend on the peer."""
    reasons = dict(NOT_BUILT)
    forced = side.config.transport
    tcp = _offer_tcp(side, reasons)
    cma = _offer_cma(side, reasons)
    rdma = _offer_rdma(side, reasons)
    cuda_ipc = _offer_cuda_ipc(side, reasons)
    loopback = wire.LoopbackOffer()
    offers = wire.Offers(tcp=tcp, cma=cma, cuda_ipc=cuda_ipc, rdma=rdma, loopback=loopback)
    if forced != "auto":
        others = {"tcp", "cma", "cuda_ipc", "rdma", "loopback"} - {forced}
        reasons |= dict.fromkeys(others, f"decode is set to KVCACHE_TRANSPORT={forced}")
        only = getattr(offers, forced, None)
        offers = wire.Offers(**{forced: only}) if only is not None else wire.Offers()
    return Offering(offers, {name: wire.sentence(why) for name, why in reasons.items()})


def _offer_tcp(side: Side, reasons: dict[str, str]) -> wire.TcpOffer | None:
    if why := side.gpu_reason():
        reasons["tcp"] = f"decode cannot: {why}"
        return None
    return wire.TcpOffer()


def _offer_cma(side: Side, reasons: dict[str, str]) -> wire.CmaOffer | None:
    try:
        if why := side.gpu_reason():
            raise TransportUnavailable(why)
        return wire.CmaOffer(**_core.cma_offer(side.engine))
    except RdmaKvError as error:
        reasons["cma"] = f"decode cannot: {error}"
        return None


def _offer_cuda_ipc(side: Side, reasons: dict[str, str]) -> wire.CudaIpcOffer | None:
    if not side.cuda_exports:
        reasons["cuda_ipc"] = f"decode cannot: {side.no_cuda_ipc}"
        return None
    [exports] = side.cuda_exports
    segments = exports.segments
    pieces = sum(len(pieces) for _, pieces in segments)
    if pieces > wire.MOST_PIECES:
        reasons["cuda_ipc"] = (
            f"decode's cache lies in {pieces} allocations; a message holds {wire.MOST_PIECES}"
        )
        return None
    return wire.CudaIpcOffer(
        pid=exports.pid,
        boot_id=exports.boot_id,
        pid_namespace=exports.pid_namespace,
        segments=segments,
    )


def _offer_rdma(side: Side, reasons: dict[str, str]) -> wire.RdmaOffer | None:
    if not side.rails:
        reasons["rdma"] = f"decode cannot: {side.no_rdma}"
        return None
    keys = sum(len(rail.rkeys) for rail in side.rails)
    if keys > wire.MOST_KEYS:
        reasons["rdma"] = (
            f"decode has {keys} keys for its regions; a message holds {wire.MOST_KEYS}"
        )
        return None
    rails = [
        wire.Rail(
            nic=rail.nic,
            port=rail.port,
            gid=rail.gid,
            lid=rail.lid,
            mtu=rail.mtu,
            link_layer=rail.link_layer,
            rkeys=list(rail.rkeys),
        )
        for rail in side.rails
    ]
    return wire.RdmaOffer(rails=rails, flush=must_flush(side))


def must_flush(side: Side) -> bool:
    """Whether prefill has to read after its writes: as the rails have been opened for it."""
    return any(rail.remote_read for rail in side.rails)


@dataclass(frozen=True)
class Accepted:
    """One link that was made room for."""

    ticket: _core.Ticket
    rdma: wire.Endpoint | None = None
    ring: wire.Ring | None = None


def accept_link(
    side: Side, request: wire.Open, origin: str, prefill: _core.Geometry, prefill_pid: int
) -> Accepted:
    """Makes room for one link of a transport that was offered.

    Raises:
        TransportUnavailable: It cannot be opened after all; the message goes to the peer.
    """
    engine, epoch = side.engine, request.epoch
    if request.staged or side.must_stage(request.transport):
        return _accept_staged(side, request, origin, prefill, prefill_pid)
    if request.transport == "tcp":
        return Accepted(_core.tcp_accept(engine, origin, epoch, prefill, request.streams))
    if request.transport == "cma":
        return Accepted(_core.cma_accept(engine, origin, epoch, prefill, prefill_pid))
    if request.transport == "cuda_ipc":
        return Accepted(_core.cuda_ipc_accept(engine, origin, epoch, prefill, prefill_pid))
    if request.transport == "loopback":
        return Accepted(_core.loopback_accept(engine, origin, epoch, prefill))
    if request.transport == "rdma":
        if request.rdma is None or request.rail >= len(side.rails):
            raise TransportUnavailable(
                f"decode has {len(side.rails)} rails, rail {request.rail} was asked for"
            )
        rail = side.rails[request.rail]
        remote = from_wire_endpoint(request.rdma)
        ticket, endpoint = _core.rdma_accept(engine, rail, origin, epoch, prefill, remote)
        return Accepted(ticket, to_wire_endpoint(endpoint))
    raise TransportUnavailable(f"decode knows no transport {request.transport!r}")


def _accept_staged(
    side: Side, request: wire.Open, origin: str, prefill: _core.Geometry, prefill_pid: int
) -> Accepted:
    staging, engine, epoch = side.staging, side.engine, request.epoch
    if staging is None:
        raise TransportUnavailable(f"decode cannot stage blocks: {side.no_staging}")
    if request.transport == "tcp":
        streams = staged_streams(request.streams)
        ticket, ring = staging.accept_tcp(engine, origin, epoch, prefill, streams)
    elif request.transport == "cma":
        ticket, ring = staging.accept_cma(engine, origin, epoch, prefill, prefill_pid)
    else:
        raise TransportUnavailable(f"decode cannot stage blocks over {request.transport!r}")
    address, slots, slot_bytes, on_gpu = ring
    return Accepted(
        ticket,
        ring=wire.Ring(address=address, slots=slots, slot_bytes=slot_bytes, on_gpu=on_gpu),
    )
