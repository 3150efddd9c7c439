"""Strangers at both ports of decode, while a healthy pair writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support.cache import Shape
from support.patience import SCALE, eventually, scaled
from support.peer import PeerProcess, RemoteSide
from support.side import Side
from support.strangers import (
    GREETING,
    HELLO,
    MIB,
    READY,
    data_port_of,
    descriptors,
    flood,
    message,
    noise,
    resident_mib,
    strangers,
)
from support.wire import Wire

pytestmark = pytest.mark.two_processes

SHAPE = Shape(layers=2, blocks=128, block_bytes=1 << 10)
LOAD = {"blocks": SHAPE.blocks, "size": 16}
FLOOD = round(100 / SCALE) * MIB
CROWD = max(100, round(400 / SCALE))
MOST_MIB = 24  # that decode may grow by, whatever is said to it
MOST_PENDING = 64  # connections to the data port that may be waiting to say who they are
SLACK = 16  # descriptors that come and go


@dataclass
class Scene:
    """A pair whose six writers never pause, and decode's two ports."""

    prefill: Side
    decode: RemoteSide
    data_port: str

    def address(self, port: str) -> tuple[str, str]:
        host, control_port = self.decode.address
        return host, {"control": control_port, "data": self.data_port}[port]

    def writes_go_on(self) -> None:
        self.decode.notices()  # or they are held up: nobody takes their notices
        self.prefill.load_flows(5, 10)


@pytest.fixture
def scene(wire: Wire, born: Callable[[], PeerProcess]) -> Iterator[Scene]:
    """Checks, after the test, that the pair saw nothing of it and that decode forgot it all."""
    prefill, decode = wire.prefill(SHAPE), wire.decode(SHAPE, process=born())
    made = Scene(prefill, decode, data_port_of(decode.address, SHAPE))
    assert prefill.connect(decode.address)
    pid = decode.process.pid
    prefill.start_load(decode.address, **LOAD)
    made.writes_go_on()
    memory, files = resident_mib(pid), descriptors(pid)

    yield made

    made.writes_go_on()
    assert resident_mib(pid) < memory + MOST_MIB
    # Who says nothing is closed by its own end; who hung up, at once.
    eventually(lambda: descriptors(pid) <= files + 2, 15, f"decode is back at {files} descriptors")
    lanes = prefill.end_load(20)
    assert [lane["error"] for lane in lanes] == [""] * len(lanes)
    assert prefill.connect(decode.address)


BEGIN = {"control": [GREETING, READY], "data": [HELLO]}
HALF = {"control": GREETING[:40], "data": HELLO[:40]}
both_ports = pytest.mark.parametrize("port", ["control", "data"])


@both_ports
def test_a_few_strangers_of_each_kind(scene: Scene, port: str):
    """They say nothing, half of a greeting, a greeting, noise, a greeting and noise."""
    with strangers(scene.address(port), 100) as crowd:
        for number, stranger in enumerate(crowd):
            kind = number % 5
            if kind == 1:
                stranger.say(HALF[port])
            if kind in (2, 4):
                stranger.talk(BEGIN[port])
            if kind in (3, 4):
                stranger.say(noise(5000))
        scene.writes_go_on()


@both_ports
def test_a_crowd(scene: Scene, port: str):
    pid = scene.decode.process.pid
    before = descriptors(pid)
    most = MOST_PENDING if port == "data" else CROWD

    with strangers(scene.address(port), CROWD) as crowd:
        for number, stranger in enumerate(crowd):
            stranger.say(HALF[port] if number % 2 else b"")
        scene.writes_go_on()

        assert descriptors(pid) <= before + most + SLACK


FLOODS = {
    "control": [
        ([], noise(MIB)),
        ([GREETING], noise(MIB)),
        (BEGIN["control"], message(1 << 40, MIB)),  # one that does not end
        (BEGIN["control"], 16 * message(64 << 10)),
    ],
    "data": [
        ([], noise(MIB)),
        ([HELLO], noise(MIB)),
    ],
}


@both_ports
def test_floods_of_100_mib(scene: Scene, port: str):
    pid = scene.decode.process.pid
    memory, most = resident_mib(pid), 0.0

    with ThreadPoolExecutor(1) as pool:
        for begin, piece in FLOODS[port]:
            flooding = pool.submit(flood, scene.address(port), begin, piece, FLOOD)
            while not flooding.done():
                scene.writes_go_on()
                most = max(most, resident_mib(pid))
            flooding.result(scaled(60))

    assert most < memory + MOST_MIB
