"""What is too large for the wire is refused before anything moves, and costs no link."""

from __future__ import annotations

import numpy as np
import pytest

from rdma_kv import Config, RDMACommunicator

BLOCKS = (1 << 20) + 2


def test_a_write_of_too_many_runs_is_refused_and_the_link_goes_on() -> None:
    source, target = np.arange(BLOCKS, dtype=np.uint8), np.zeros(BLOCKS, np.uint8)
    config = Config(transport="tcp", socket_ifname="lo")
    caches = [source.reshape(-1, 1)], [target.reshape(-1, 1)]
    turned = np.arange(BLOCKS)[::-1].copy()
    with (
        RDMACommunicator("prefill", -1, 0, caches[0], [], BLOCKS, 1, config=config) as prefill,
        RDMACommunicator("decode", -1, 0, caches[1], [], BLOCKS, 1, config=config) as decode,
    ):
        prefill.connect("127.0.0.1", decode.port)

        with pytest.raises(ValueError, match=r"1048578 runs .* tcp takes at most 1048576: split"):
            prefill.write_cache("127.0.0.1", decode.port, np.arange(BLOCKS), turned, 0)

        assert not target.any()
        for half in np.array_split(np.arange(BLOCKS), 2):
            prefill.write_cache("127.0.0.1", decode.port, half, turned[half], 0)
        assert (target == source[::-1]).all()
