"""Two engines of one process joined by a loopback link, below the Python face.

For what only a link on request can show: transfers that never end, that take long, that break.
"""

from __future__ import annotations

from types import TracebackType

from rdma_kv import _core
from support.cache import Cache, Shape
from support.patience import scaled

HERE = "127.0.0.1"
KINDS = {"key": 0, "value": 1, "key_scale": 2, "value_scale": 3}


def layout_of(cache: Cache) -> _core.Layout:
    shape = cache.shape
    names = sorted(shape.tensors(), key=KINDS.__getitem__)
    geometry = _core.Geometry(
        shape.layers, shape.blocks, [(KINDS[name], *shape.tensors()[name]) for name in names]
    )
    bases = [cache.pointers(name)[layer] for layer in range(shape.layers) for name in names]
    return _core.Layout(geometry, bases, [-1] * len(bases))


class Node:
    """A cache and its engine."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.cache = Cache(shape, seed)
        self.engine = _core.Engine(layout_of(self.cache))
        self.port = self.engine.listen(HERE, 0)

    def open(self, decode: Node) -> _core.Peer:
        """A link from this node to another."""
        mine, theirs = self.engine, decode.engine
        ticket = _core.loopback_accept(theirs, "prefill", mine.epoch, mine.layout.geometry)
        remote = _core.RemoteEnd(
            mine,
            f"{HERE}:{decode.port}",
            HERE,
            decode.port,
            theirs.epoch,
            ticket.link_id,
            ticket.token,
            theirs.layout.geometry,
            [base for base, _, _ in theirs.layout.regions],
            scaled(10),
        )
        return _core.loopback_open(mine, remote)

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.close(scaled(1))
