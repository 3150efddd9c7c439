"""A prefill that has the right token and lies about keys or addresses, as a hostile one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rdma_kv import TransferError, _core
from support.wire import Wire, image_of
from tests.faults.network.cable import PREFILL, Cable
from tests.faults.network.pair import EVERY, SHAPE, TURNED, Pair

Numbers = list[int]
REGION_BYTES = SHAPE.blocks * SHAPE.block_bytes


def forge(
    monkeypatch: pytest.MonkeyPatch,
    keys: Callable[[Numbers], Numbers] = lambda keys: keys,
    bases: Callable[[Numbers], Numbers] = lambda bases: bases,
) -> None:
    """Connections made from now on use other keys and addresses than decode has told."""
    connector, remote_end = _core.RdmaConnector, _core.RemoteEnd

    class Forger:
        def __init__(self, *what: Any) -> None:
            self._connector = connector(*what)
            self.endpoint = self._connector.endpoint

        def connect(self, remote: Any, endpoint: Any, rkeys: Numbers, flush: bool) -> Any:
            return self._connector.connect(remote, endpoint, keys(rkeys), flush)

    def forged_end(*what: Any) -> Any:
        *first, told, timeout_s = what
        return remote_end(*first, bases(told), timeout_s)

    monkeypatch.setattr(_core, "RdmaConnector", Forger)
    monkeypatch.setattr(_core, "RemoteEnd", forged_end)


@pytest.mark.parametrize("lane", ["rdma"], indirect=True)
@pytest.mark.parametrize(
    "lie",
    [
        {"keys": lambda keys: [key ^ 0x5A00 for key in keys]},
        {"keys": lambda keys: keys[1:] + keys[:1]},
        {"bases": lambda bases: [base + REGION_BYTES - 100 for base in bases]},
        {"bases": lambda bases: [base - 100 for base in bases]},
    ],
    ids=["unknown-keys", "keys-of-others", "beyond-the-end", "before-the-start"],
)
def test_a_lie_lands_nowhere_and_costs_nobody_else(
    lane: Wire, cable: Cable, monkeypatch: pytest.MonkeyPatch, lie: dict[str, Any]
) -> None:
    honest = Pair(lane)
    hostile = lane.prefill(SHAPE, KVCACHE_RDMA_NICS=PREFILL.nic)
    with monkeypatch.context() as forged:
        forge(forged, **lie)
        assert hostile.connect(honest.address)

    with pytest.raises(TransferError, match="remote access error") as caught:
        # Ascending where the lie starts below a region, so that its first block is the first.
        hostile.write(honest.address, EVERY, EVERY if "bases" in lie else TURNED, tag=5)

    honest.names_all(caught.value)
    assert "a wrong rkey" in str(caught.value)
    assert not honest.decode.changed_within(0.5)
    assert honest.decode.digests() == image_of(honest.decode).digests(), "something landed"
    assert honest.decode.notices() == []
    honest.works()
