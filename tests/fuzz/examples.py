"""One of each control message: where mutation starts from."""

from __future__ import annotations

from rdma_kv import _messages as wire

GEOMETRY = wire.Geometry(
    layers=2,
    block_count=16,
    tensors=[(0, 32, 48), (1, 32, 32)],
    dtype="float16",
    tp_size=2,
    tp_rank=1,
)
HOST = wire.Host(boot_id="b007", pid=4242)
ENDPOINT = wire.Endpoint(
    gid=bytes(range(16)), lid=7, mtu=4096, link_layer="Ethernet", qps=[(17, 2**24 - 1), (18, 0)]
)
RAIL = wire.Rail(
    nic="mlx5_0", port=1, gid=bytes(16), lid=65535, mtu=4096, link_layer="IB", rkeys=[1, 2**32 - 1]
)
CMA = wire.CmaOffer(
    pid=1, boot_id="b007", pid_namespace=1, probe_address=2**47, probe_nonce=bytes(16)
)

FROM_PREFILL: list[wire.Message] = [
    wire.Hello(
        epoch=7,
        role="prefill",
        host=HOST,
        geometry=GEOMETRY,
        transports=["tcp", "cma"],
        ends=[1, 2**64 - 1],
        automatic=True,
    ),
    wire.Open(epoch=7, peer_epoch=9, transport="rdma", streams=64, rail=15, rdma=ENDPOINT),
    wire.CloseLink(epoch=7, peer_epoch=9, link_id=2**64 - 1),
    wire.Ping(epoch=7, peer_epoch=9, sequence=1),
    wire.Verify(
        epoch=7, peer_epoch=9, sequence=2, layer=1, tensor=1, blocks=[3, 5], checksums=[0, 2**31]
    ),
    wire.Revoked(epoch=7, peer_epoch=9, sequence=1),
    wire.Bye(epoch=7, reason="closed"),
]
FROM_DECODE: list[wire.Message] = [
    wire.Welcome(
        epoch=2**64 - 1,
        host=HOST,
        geometry=GEOMETRY,
        bases=[2**47, 2**64 - 4096, 1, 2],
        data_port=65535,
        offers=wire.Offers(
            tcp=wire.TcpOffer(),
            cma=CMA,
            rdma=wire.RdmaOffer(rails=[RAIL], flush=True),
            loopback=wire.LoopbackOffer(),
        ),
        reasons={"shm": "not built"},
        patience_ms=500,
        revoked=[1, 2**32 - 1],
    ),
    wire.Refused(epoch=9, code=wire.BUSY, reason="full", ours="1", theirs="2"),
    wire.Opened(epoch=9, link_id=5, token=bytes(16), rdma=ENDPOINT),
    wire.Pong(epoch=9, sequence=1),
    wire.Verified(epoch=9, sequence=2, bad_blocks=[5]),
    wire.Revoke(epoch=9, sequence=1, tag=7, lifted=True),
    wire.Bye(epoch=9, reason="closed"),
]
