"""Whether a transfer was hidden behind compute is worked out from time stamps alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rdma_kv import TransferStats
from rdma_kv.cli.demo.prefill import Submitted, layer_times

MS = 1_000_000


def submitted(layer: int, ready: int, called: int, returned: int, finished: int) -> Submitted:
    """All in milliseconds."""
    total_us = (finished - called) * 1e3
    stats = TransferStats(4, 1000, 4, queued_us=0.0, moved_us=total_us, total_us=total_us)
    transfer = cast(Any, SimpleNamespace(stats=stats))
    return Submitted(layer, ready * MS, called * MS, returned * MS, transfer)


@pytest.mark.parametrize(
    ("finished", "hidden", "exposed"),
    [
        (13, 0, 1),  # within the call: the compute thread was held up all the time
        (20, 6, 2),  # 12 to 14 in the call, the rest while the model computed
        (35, 17, 6),  # 30 to 34: the next layer was copied and handed over, not computed
        (70, 43, 15),  # 61 to 70: the model had ended
    ],
)
def test_only_what_passed_while_the_model_computed_is_hidden(
    finished: int, hidden: int, exposed: int
) -> None:
    first = submitted(0, ready=10, called=12, returned=14, finished=finished)
    second = submitted(1, ready=30, called=33, returned=34, finished=36)

    times = layer_times([first, second], computed_ns=61 * MS)[0]

    assert times.hidden_ms == pytest.approx(hidden)
    assert times.exposed_ms == pytest.approx(exposed)
    assert (times.copy_ms, times.call_ms, times.compute_ms) == (2, 2, 16)
