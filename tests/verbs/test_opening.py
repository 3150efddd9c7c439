"""NICs, GIDs, endpoints and keys that do not fit, each with its own words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import rdma_kv
from rdma_kv import _core

pytestmark = pytest.mark.vm


def test_devices_tell_ports_and_gids() -> None:
    ports = {port["nic"]: port for port in _core.rdma_devices()}

    assert set(ports) == {"rxe0", "rxe1"}
    port = ports["rxe0"]
    assert (port["port"], port["link_layer"], port["mtu"]) == (1, "Ethernet", 4096)
    assert port["netdev"] == "v0"
    assert {"index": 1, "type": "RoCE v2", "text": "::ffff:10.0.0.1"}.items() <= (
        port["gids"][1].items()
    )


def test_the_address_of_the_interface_is_chosen_and_the_reason_told(lab: Any) -> None:
    rail = lab.side(nic="rxe1").rail

    assert (rail.gid_index, rail.gid[-4:]) == (1, bytes([10, 0, 0, 2]))
    assert rail.gid_reason == "RoCE v2 with the IPv4 address of the interface, as wanted"


def test_a_port_can_be_named(lab: Any) -> None:
    assert lab.side(nic="rxe1:1").rail.port == 1


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        ("mlx5_9", "NIC 'mlx5_9' does not exist; this machine has rxe0, rxe1"),
        ("rxe0:7", "NIC rxe0 has no port 7"),
        ("rxe0:x", "after the colon comes a port number"),
    ],
)
def test_a_nic_that_is_not_there_is_refused_with_those_that_are(
    lab: Any, nic: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        lab.side(nic=nic)


def test_a_gid_index_that_is_not_there_is_refused_with_those_that_are(lab: Any) -> None:
    engine = lab.side().engine

    with pytest.raises(ValueError, match=r"GID index 9 .* 0 \(RoCE v2, fe80.*1 \(RoCE v2, ::ffff"):
        _core.RdmaRail(engine, "rxe0", 9, 18, False, False)


@pytest.mark.parametrize("qps", [0, 17])
def test_a_count_of_queue_pairs_out_of_bounds_is_refused(lab: Any, qps: int) -> None:
    side = lab.side()

    with pytest.raises(ValueError, match=rf"{qps} queue pairs .* 1\.\.16"):
        _core.RdmaConnector(side.engine, side.rail, qps)


def test_another_link_layer_is_refused_with_both_named(lab: Any) -> None:
    decode = lab.side(nic="rxe1")
    decode.listen()
    theirs = _core.RdmaEndpoint(bytes(16), 4, 4096, "InfiniBand", [(17, 1)])

    with pytest.raises(rdma_kv.HandshakeError, match=r"is Ethernet, .* is InfiniBand"):
        _core.rdma_accept(decode.engine, decode.rail, "prefill", 5, decode.geometry, theirs)
    assert lab.count("qp", "rxe1") == 0


def test_keys_that_fit_no_chunk_size_are_refused(lab: Any) -> None:
    prefill, decode = lab.side(), lab.side(nic="rxe1")

    with pytest.raises(rdma_kv.HandshakeError, match="gave 3 rkeys for its 4 regions"):
        lab.join(prefill, decode, rkeys=decode.rail.rkeys[:3])


REGISTER = """
import numpy, resource
from rdma_kv import _core
resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
memory = numpy.zeros(1 << 20, numpy.uint8)
geometry = _core.Geometry(1, 1, [(0, 1 << 20, 1 << 20)])
engine = _core.Engine(_core.Layout(geometry, [memory.ctypes.data], [-1]))
try:
    _core.RdmaRail(engine, "rxe0", -1, 18, False, False)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_limit_on_pinned_memory_is_named_with_its_remedy() -> None:
    # Root may pin what it likes unless it gave that right away.
    command = ["setpriv", "--bounding-set=-ipc_lock", sys.executable, "-c", REGISTER]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said.startswith("RegistrationError ibv_reg_mr: Cannot allocate memory")
    assert "1048576 bytes of host memory" in said
    assert "limited to 64 KiB" in said
    assert "ulimit -l unlimited" in said
