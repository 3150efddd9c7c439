"""Two sides on real verbs, below the Python face: rails and links as `_core` offers them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from rdma_kv import _core

HERE = "127.0.0.1"
PATIENCE_S = 20.0
# 4.096 us * 2^12: a lost packet is sent again after 17 ms, so that a lost peer is found in a test.
QUICK_TIMEOUT = 12

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without devices the ring says so; once rdma was asked for that is a failure instead."""
    names = [n for text in config.getoption("--transport", []) for n in text.split(",")]
    if "rdma" in names or _devices():
        return
    skip = pytest.mark.skip(reason="no RDMA device; scripts/rdma-vm has two")
    for item in items:
        if item.get_closest_marker("vm"):
            item.add_marker(skip)


def _devices() -> list[str]:
    try:
        return [port["nic"] for port in _core.rdma_devices()]
    except Exception:  # no library: no devices
        return []


@dataclass
class Side:
    """A cache of random bytes with its engine and its rail."""

    nic: str = "rxe0"
    layers: int = 2
    blocks: int = 64
    block_bytes: int = 4096
    fill: int | None = None
    remote_read: bool = False
    most_mr_bytes: int = 0
    port: int = 0
    regions: list[Bytes] = field(init=False)

    def __post_init__(self) -> None:
        count = self.layers * 2
        size = self.blocks * self.block_bytes
        if self.fill is None:
            noise = np.random.default_rng(7)
            self.regions = [noise.integers(0, 256, size, dtype=np.uint8) for _ in range(count)]
        else:
            self.regions = [np.full(size, self.fill, np.uint8) for _ in range(count)]
        tensors = [(kind, self.block_bytes, self.block_bytes) for kind in (0, 1)]
        self.geometry = _core.Geometry(self.layers, self.blocks, tensors)
        self.bases = [region.ctypes.data for region in self.regions]
        self.engine = _core.Engine(_core.Layout(self.geometry, self.bases, [-1] * count))
        self.rail = _core.RdmaRail(
            self.engine, self.nic, -1, QUICK_TIMEOUT, False, self.remote_read, self.most_mr_bytes
        )

    def listen(self) -> int:
        self.port = self.port or self.engine.listen(HERE, 0)
        return self.port

    def block(self, region: int, block: int) -> Bytes:
        return self.regions[region][block * self.block_bytes :][: self.block_bytes]

    def snapshot(self) -> list[Bytes]:
        return [region.copy() for region in self.regions]

    def close(self) -> None:
        self.engine.close(1.0)


class Lab:
    """Makes sides and joins them; closes everything at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def side(self, **settings: Any) -> Side:
        return self._stack.enter_context(closing(Side(**settings)))

    def join(
        self,
        prefill: Side,
        decode: Side,
        *,
        qps: int = 1,
        flush: bool = False,
        rkeys: Sequence[int] | None = None,
    ) -> _core.Peer:
        port = decode.listen()
        connector = _core.RdmaConnector(prefill.engine, prefill.rail, qps)
        ticket, endpoint = _core.rdma_accept(
            decode.engine,
            decode.rail,
            "prefill",
            prefill.engine.epoch,
            prefill.geometry,
            connector.endpoint,
        )
        remote = _core.RemoteEnd(
            prefill.engine,
            "decode",
            HERE,
            port,
            decode.engine.epoch,
            ticket.link_id,
            ticket.token,
            decode.geometry,
            decode.bases,
            PATIENCE_S,
        )
        keys = decode.rail.rkeys if rkeys is None else rkeys
        return connector.connect(remote, endpoint, keys, flush)

    @staticmethod
    def count(kind: str, nic: str) -> int:
        """How many `mr` or `qp` of a NIC the kernel counts; its own management ones left out."""
        shown = subprocess.run(
            ["rdma", "resource", "show", kind], check=True, capture_output=True, text=True
        ).stdout
        ours = [line for line in shown.splitlines() if "[ib_core]" not in line]
        return sum(1 for line in ours if re.search(rf"\b{nic}\b", line))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack)
