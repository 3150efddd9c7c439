"""What users read: the call, the reason, the peer, the path, the blocks, the cause, the way out.

The texts are in golden/, one file a fault.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rdma_kv import Transfer, TransferError, _core
from support.cache import Shape
from support.golden import assert_golden
from support.outcome import ending
from support.patience import SCALE, eventually, scaled
from support.peer import PeerProcess, RemoteSide
from support.side import HERE, Side
from support.wire import Wire

Bear = Callable[[], PeerProcess]

SHAPE = Shape(layers=2, blocks=512, block_bytes=max(1 << 10, round((4 << 10) / SCALE)))
SRC, DST = list(range(100, 500)), list(range(499, 99, -1))
SMALL = Shape()
# Writes: more than can be over before the fault.
MANY = max(4, round(300 / SCALE**3))
NOTICES = 300  # more than a NIC takes for a process that stands still


def lonely_pair(wire: Wire, born: Bear) -> tuple[Side, RemoteSide]:
    """A pair whose decode may be killed, and whose prefill makes no second link."""
    prefill = wire.prefill(SHAPE, reconnect=False)
    decode = wire.decode(SHAPE, process=born())
    assert prefill.connect(decode.address)
    return prefill, decode


def start(prefill: Side, decode: Side | RemoteSide, count: int = MANY, **how) -> list[Transfer]:
    how = {"timeout_s": scaled(30), **how}
    return [prefill.comm.write_cache_async(*decode.address, SRC, DST, **how) for _ in range(count)]


def stop(transfers: list[Transfer]) -> None:
    """So that closing need not wait for them."""
    for transfer in reversed(transfers):
        transfer.cancel()


def name_of(side: Side | RemoteSide) -> str:
    return ":".join(side.address)


def last_error(transfers: list[Transfer]) -> TransferError | None:
    return ending(transfers[-1])


@pytest.mark.two_processes
def test_decode_is_killed(wire: Wire, born: Bear):
    prefill, decode = lonely_pair(wire, born)
    transfers = start(prefill, decode)

    decode.process.kill()

    assert_golden(last_error(transfers), "decode_killed", wire.transport, peer=name_of(decode))


@pytest.mark.two_processes
def test_decode_is_silent(wire: Wire, born: Bear):
    """Of the writes that were still queued: they are lost, and over."""
    prefill, decode = lonely_pair(wire, born)
    decode.process.pause()
    for _ in range(NOTICES):
        prefill.comm.write_cache_async(*decode.address, [1], [1], 0, tag=1, timeout_s=scaled(30))
    transfers = start(prefill, decode, MANY, tag=1)

    eventually(lambda: not prefill.is_connected(decode.address), 20, "the silent one is given up")

    assert_golden(last_error(transfers), "decode_silent", wire.transport, peer=name_of(decode))


@pytest.mark.two_processes
def test_a_write_is_cancelled(wire: Wire):
    prefill, decode = wire.pair(SHAPE)
    under_way = start(prefill, decode)
    (last,) = start(prefill, decode, 1)

    last.cancel()

    assert_golden(ending(last), "cancelled", wire.transport, peer=name_of(decode))
    stop(under_way)


@pytest.mark.two_processes
def test_a_write_misses_its_deadline_in_the_queue(wire: Wire):
    prefill, decode = wire.pair(SHAPE)
    under_way = start(prefill, decode)
    (last,) = start(prefill, decode, 1, timeout_s=0.001 * SCALE)

    assert_golden(ending(last), "deadline_in_queue", wire.transport, peer=name_of(decode))
    stop(under_way)


@pytest.mark.two_processes
def test_prefill_closes_under_its_writes(wire: Wire):
    prefill, decode = wire.pair(SHAPE)
    transfers = start(prefill, decode, MANY)

    prefill.comm.close(timeout_s=0)

    assert_golden(last_error(transfers), "closed_here", wire.transport, peer=name_of(decode))


def test_a_write_to_nobody(wire: Wire):
    prefill = wire.prefill(SMALL)

    with pytest.raises(TransferError) as error:
        prefill.write((HERE, "5"), [1], [2])

    assert_golden(error.value, "never_connected", wire.transport)


def test_a_notice_that_never_comes(wire: Wire):
    decode = wire.decode(SMALL)

    with pytest.raises(TransferError) as error:
        decode.received(7, 0.1 / SCALE)

    assert_golden(error.value, "no_notice", wire.transport)


# ---- each transport has a fault of its own


def stopped_beyond_the_deadline(wire: Wire, born: Bear) -> None:
    """cma and cuda_ipc have written, and wait for the notice; tcp cannot know what was taken."""
    prefill, decode = lonely_pair(wire, born)
    decode.process.pause()

    error = ending(start(prefill, decode, tag=1, timeout_s=0.5)[0])

    assert_golden(error, "decode_stopped", wire.transport, peer=name_of(decode))


def lost_on_the_way(wire: Wire, born: Bear) -> None:
    """Loopback drops on request."""
    prefill, decode = wire.pair(SHAPE)
    faults = _core.loopback_faults()
    faults.drop(1)
    try:
        error = last_error(start(prefill, decode, 1, timeout_s=0.2))
    finally:
        faults.clear()

    assert_golden(error, "lost_on_the_way", wire.transport, peer=name_of(decode))


def nic_gets_no_answer(wire: Wire, born: Bear) -> None:
    """The NIC's own words. From rail to rail: a NIC reaches itself without its interface."""
    prefill = wire.prefill(SMALL, KVCACHE_RDMA_NICS="rxe0", KVCACHE_IB_TIMEOUT="14")
    decode = wire.decode(SMALL, process=born(), KVCACHE_RDMA_NICS="rxe1")
    assert prefill.connect(decode.address)

    with lost_packets("v0"), pytest.raises(TransferError) as error:
        prefill.write(decode.address, [1, 2], [3, 5])

    assert_golden(error.value, "nic_gets_no_answer", wire.transport, peer=name_of(decode))


@contextmanager
def lost_packets(interface: str) -> Iterator[None]:
    tc = ["tc", "qdisc"]
    where = ["dev", interface, "root"]
    subprocess.run([*tc, "add", *where, "netem", "loss", "100%"], check=True)
    try:
        yield
    finally:
        subprocess.run([*tc, "del", *where], check=True)


FAULT_OF = {
    "cma": stopped_beyond_the_deadline,
    "cuda_ipc": stopped_beyond_the_deadline,
    "tcp": stopped_beyond_the_deadline,
    "loopback": lost_on_the_way,
    "rdma": nic_gets_no_answer,
}


def test_the_fault_of_this_transport(wire: Wire, born: Bear):
    FAULT_OF[wire.transport](wire, born)


# ---- connecting


def refusal(prefill: Side, address: tuple[str, str]) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 - its class is in the golden file
        prefill.connect(address, 1 / SCALE)
    return error.value


@pytest.mark.one_transport
def test_nobody_listens(wire: Wire):
    with socket.create_server((HERE, 0)) as probe:
        address = HERE, str(probe.getsockname()[1])

    error = refusal(wire.prefill(SMALL), address)

    assert_golden(error, "nobody_listens", wire.transport, peer=":".join(address))


@pytest.mark.one_transport
def test_somebody_listens_and_is_silent(wire: Wire):
    with socket.create_server((HERE, 0)) as server:
        address = HERE, str(server.getsockname()[1])
        error = refusal(wire.prefill(SMALL), address)

    assert_golden(error, "silent_listener", wire.transport, peer=":".join(address))


@pytest.mark.one_transport
def test_the_caches_do_not_fit(wire: Wire):
    decode = wire.decode(SMALL)

    error = refusal(wire.prefill(SMALL.but(block_bytes=512)), decode.address)

    assert_golden(error, "caches_do_not_fit", wire.transport, peer=name_of(decode))


@pytest.mark.one_transport
@pytest.mark.host_memory
def test_the_transport_is_not_offered(wire: Wire):
    decode = wire.decode(SMALL, KVCACHE_TRANSPORT="tcp")
    prefill = wire.prefill(SMALL, KVCACHE_TRANSPORT="cma")

    error = refusal(prefill, decode.address)

    assert_golden(error, "transport_not_offered", wire.transport, peer=name_of(decode))


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("sixteen bytes at least")
    path.chmod(0o600)
    return str(path)


@pytest.mark.one_transport
@pytest.mark.parametrize("who", ["decode", "prefill"])
def test_only_one_side_has_a_secret(wire: Wire, secret: str, who: str):
    settings = {"KVCACHE_AUTH_KEY_FILE": secret}
    decode = wire.decode(SMALL, **settings if who == "decode" else {})
    prefill = wire.prefill(SMALL, **settings if who == "prefill" else {})

    error = refusal(prefill, decode.address)

    assert_golden(error, f"only_{who}_has_a_secret", wire.transport, peer=name_of(decode))
