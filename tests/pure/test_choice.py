"""Which transports prefill tries, in which order, and what it says about the others."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from rdma_kv import Config, _core
from rdma_kv import _messages as wire
from rdma_kv._choice import candidates, matching_rail
from rdma_kv._side import Side, staged_streams

GID = bytes(16)
CMA = wire.CmaOffer(pid=1, boot_id="here", pid_namespace=1, probe_address=1, probe_nonce=GID)


def rail(link_layer="Ethernet"):
    return SimpleNamespace(link_layer=link_layer)


def rdma_offer(*link_layers):
    rails = [
        wire.Rail(nic=f"nic{i}", port=1, gid=GID, lid=0, mtu=1024, link_layer=name, rkeys=[1])
        for i, name in enumerate(link_layers)
    ]
    return wire.RdmaOffer(rails=rails, flush=False)


def side(transport="auto", rails=(), device=-1):
    geometry = _core.Geometry(1, 1, [(0, 64, 64)])
    engine = SimpleNamespace(layout=_core.Layout(geometry, [4096], [device]))
    host = wire.Host(boot_id="here", pid=1)
    return Side(engine, Config(transport=transport), host, None, list(rails), "no NIC on prefill")


def welcome(boot_id="here", reasons=None, **offers):
    return wire.Welcome(
        epoch=1,
        host=wire.Host(boot_id=boot_id, pid=2),
        geometry=wire.Geometry(layers=1, block_count=1, tensors=[(0, 64, 64)]),
        bases=[4096],
        data_port=1,
        offers=wire.Offers(tcp=wire.TcpOffer(), **offers),
        reasons=reasons or {},
    )


def test_on_one_host_cma_comes_first_then_rdma_then_tcp():
    possible, _ = candidates(side(rails=[rail()]), welcome(cma=CMA, rdma=rdma_offer("Ethernet")))

    assert possible == ["cma", "rdma", "tcp"]


def test_between_hosts_cma_is_passed_over():
    possible, reasons = candidates(side(), welcome(boot_id="there", cma=CMA))

    assert possible == ["tcp"]
    assert reasons["cma"] == "the two sides are on different hosts"


@pytest.mark.parametrize("name", ["cma", "tcp"])
def test_blocks_on_a_gpu_that_cannot_be_staged_are_out_of_reach(name):
    given = dataclasses.replace(side(device=0), no_staging="no kernel")

    possible, reasons = candidates(given, welcome(cma=CMA))

    assert name not in possible
    assert "on a GPU" in reasons[name]
    assert "no kernel" in reasons[name]


def test_blocks_on_a_gpu_are_staged_over_what_reaches_host_memory():
    given = dataclasses.replace(side(device=0), staging=object())

    possible, _ = candidates(given, welcome(cma=CMA))

    assert possible == ["cma", "tcp"]


@pytest.mark.parametrize(
    ("device", "transport", "must"),
    [(-1, "tcp", False), (0, "tcp", True), (0, "cma", True), (0, "cuda_ipc", False)],
)
def test_only_host_transports_of_gpu_blocks_must_stage(device, transport, must):
    assert side(device=device).must_stage(transport) is must


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (63, 63), (64, 63)])
def test_a_staged_link_keeps_a_stream_for_its_answers(asked, given):
    assert staged_streams(asked) == given


def test_a_prefill_without_a_nic_says_why_it_has_no_rdma():
    _, reasons = candidates(side(), welcome(rdma=rdma_offer("Ethernet")))

    assert reasons["rdma"] == "prefill cannot: no NIC on prefill"


def test_what_decode_does_not_offer_is_explained_in_its_own_words():
    told = {"rdma": "decode cannot: no port is active"}

    _, reasons = candidates(side(rails=[rail()]), welcome(reasons=told))

    assert reasons["rdma"] == told["rdma"]


def test_nics_of_different_link_layers_are_not_connected():
    possible, reasons = candidates(
        side(rails=[rail("InfiniBand")]), welcome(rdma=rdma_offer("Ethernet"))
    )

    assert possible == ["tcp"]
    assert reasons["rdma"] == "prefill's NIC speaks InfiniBand, and no NIC of decode does"


def test_the_first_rail_of_decode_with_the_same_link_layer_is_taken():
    offered = welcome(rdma=rdma_offer("InfiniBand", "Ethernet", "Ethernet"))

    assert matching_rail(side(rails=[rail()]), offered) == (0, 1)


@pytest.mark.parametrize("transport", ["tcp", "cma"])
def test_a_forced_transport_is_the_only_candidate(transport):
    possible, reasons = candidates(side(transport), welcome(cma=CMA))

    assert possible == [transport]
    assert set(reasons) == {"cuda_ipc", "shm", "cma", "rdma", "tcp"} - {transport}


def test_every_transport_is_a_candidate_or_has_a_reason():
    possible, reasons = candidates(side(), welcome())

    assert sorted([*possible, *reasons]) == ["cma", "cuda_ipc", "rdma", "shm", "tcp"]
    assert all(reasons.values())
