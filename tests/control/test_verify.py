"""KVCACHE_VERIFY: checksums of every block on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

import rdma_kv
from rdma_kv._heartbeat import Heartbeat
from support.one_process import HOST, LOOPBACK, cache


def test_a_verified_write_arrives_with_its_notice(make):
    config = replace(LOOPBACK, verify=True)
    target = cache()
    decode = make("decode", config=config, keys=target)
    prefill = make("prefill", config=config, keys=cache(value=3))
    prefill.connect(HOST, decode.port)

    transfer = prefill.write_cache_async(HOST, decode.port, [1, 2], [5, 4], tag=8)

    decode.received(8, 5)
    assert transfer.stats.blocks == 2
    assert (target[0][4:6] == 3).all()


def test_a_block_that_differs_at_the_peer_is_named_and_not_announced(make, monkeypatch):
    config = replace(LOOPBACK, verify=True)
    target = cache()
    decode = make("decode", config=config, values=target)
    prefill = make("prefill", config=config, values=cache(value=3))
    prefill.connect(HOST, decode.port)
    ask = Heartbeat.ask

    def corrupt_then_ask(*arguments):
        target[1][4][17] ^= 1
        monkeypatch.setattr(Heartbeat, "ask", ask)
        return ask(*arguments)

    monkeypatch.setattr(Heartbeat, "ask", corrupt_then_ask)

    with pytest.raises(rdma_kv.TransferError, match="layer 1, value, blocks 4;"):
        prefill.write_cache(HOST, decode.port, [1, 2], [5, 4], tag=8)

    assert decode.poll_received() == []
