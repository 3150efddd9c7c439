"""How each side learns that the other went, and what it may do then."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import rdma_kv
from rdma_kv import Config
from rdma_kv import _messages as wire
from rdma_kv._heartbeat import Heartbeat
from support.one_process import HOST, cache, eventually


def test_decode_hears_of_a_disconnect(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    prefill.disconnect(HOST, decode.port)

    assert not prefill.is_connected(HOST, decode.port)
    eventually(lambda: decode.peers() == [])
    with pytest.raises(rdma_kv.PeerLost, match=r"not connected .* call connect"):
        prefill.write_cache(HOST, decode.port, [0], [0])


def test_prefill_hears_of_a_decode_that_closes(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    decode.close()

    eventually(lambda: not prefill.is_connected(HOST, decode.port))


def test_a_restarted_decode_is_connected_to_at_once(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    prefill.write_cache(HOST, decode.port, [0], [0])
    port = decode.port
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, port))
    again = make("decode", port=port)

    prefill.connect(HOST, port)
    prefill.write_cache(HOST, port, [0], [0], tag=2)

    again.received(2, 5)
    assert prefill.peers()[0].epoch == again.epoch
    assert prefill.stats().transfers_done == 2  # those of the earlier connection count too


@pytest.mark.parametrize("how", ["same_life", "peer_epoch", "peer_epoch of a live link"])
def test_blocks_that_an_earlier_life_granted_are_not_written_in_the_next(make, how):
    decode = make("decode")
    prefill = make("prefill", reconnect="same_life" if how == "same_life" else True)
    prefill.connect(HOST, decode.port)
    port, granted_by = decode.port, None if how == "same_life" else decode.epoch
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, port))
    target = cache()
    make("decode", port=port, keys=target)
    if how == "peer_epoch of a live link":
        prefill.connect(HOST, port)

    with pytest.raises(rdma_kv.PeerLost, match=r"restarted: it is in epoch .* grants anew"):
        prefill.write_cache(HOST, port, [0], [0], peer_epoch=granted_by)

    assert not any(layer.any() for layer in target)


def test_a_write_reconnects_by_itself_to_a_decode_that_restarted(make, caplog):
    decode, prefill = make("decode"), make("prefill", keys=cache(value=7))
    prefill.connect(HOST, decode.port)
    port = decode.port
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, port))
    target = cache()
    again = make("decode", port=port, keys=target)

    prefill.write_cache(HOST, port, [0], [3])
    prefill.write_cache(HOST, port, [0], [4], peer_epoch=again.epoch)

    assert (target[0][3:5] == 7).all()
    assert "restarted: a write connected to its new life" in caplog.text


@pytest.mark.parametrize(("epoch", "error"), [(0, ValueError), (-1, ValueError), ("7", TypeError)])
def test_an_epoch_that_cannot_be_is_refused(make, epoch, error):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    with pytest.raises(error, match="peer_epoch is "):
        prefill.write_cache(HOST, decode.port, [0], [0], peer_epoch=epoch)


def test_a_way_to_reconnect_that_is_none_is_refused(make):
    with pytest.raises(ValueError, match="reconnect is 'always'; must be True, False or 'same"):
        make("prefill", reconnect="always")


def test_a_link_that_broke_is_replaced_by_the_next_write(make):
    target = cache()
    decode, prefill = make("decode", keys=target), make("prefill", keys=cache(value=7))
    prefill.connect(HOST, decode.port)
    [(link_id, *_)] = decode._engine.inbound_links()
    decode._engine.end_link(link_id, "broken by the test")
    eventually(lambda: not prefill.is_connected(HOST, decode.port))

    prefill.write_cache(HOST, decode.port, [0], [3], tag=2)

    decode.received(2, 5)
    assert (target[0][3] == 7).all()


def test_a_write_does_not_connect_again_when_it_must_not(make):
    decode, prefill = make("decode"), make("prefill", reconnect=False)
    prefill.connect(HOST, decode.port)
    port = decode.port
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, port))
    make("decode", port=port)

    with pytest.raises(rdma_kv.PeerLost, match="is down"):
        prefill.write_cache(HOST, port, [0], [0])


def test_a_decode_that_stays_away_is_lost_with_the_first_cause(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, decode.port))

    with pytest.raises(rdma_kv.PeerLost, match=r"is down: .* connecting again failed: .*refused"):
        prefill.write_cache(HOST, decode.port, [0], [0])


def test_a_silent_prefill_is_ended_by_decode(make, stranger):
    decode = make("decode", config=Config(transport="tcp", peer_timeout_s=0.5))
    welcome = stranger.connect(decode).hello()
    stranger.ask(wire.Open(epoch=5, peer_epoch=welcome.epoch, transport="tcp"))

    eventually(lambda: decode._engine.inbound_links() == [])

    ping = wire.Ping(epoch=5, peer_epoch=welcome.epoch, sequence=1)
    assert stranger.ask(ping).code == wire.STALE_EPOCH


def test_a_silent_decode_is_lost_by_prefill(make, monkeypatch):
    config = Config(transport="loopback", peer_timeout_s=0.5)
    decode, prefill = make("decode"), make("prefill", reconnect=False, config=config)
    prefill.connect(HOST, decode.port)
    time.sleep(1.0)
    assert prefill.is_connected(HOST, decode.port)  # heartbeats are answered

    monkeypatch.setattr("rdma_kv._sessions.Sessions._send", lambda *_: None)

    eventually(lambda: not prefill.is_connected(HOST, decode.port))
    monkeypatch.undo()
    with pytest.raises(rdma_kv.PeerLost, match="no heartbeat from it"):
        prefill.write_cache(HOST, decode.port, [0], [0])


@pytest.mark.parametrize("under_way", [0, 1])
def test_a_goodbye_leaves_time_for_confirmations_under_way(under_way):
    lost = []
    peer = SimpleNamespace(
        alive=True, name="peer", epoch=7, lose=lost.append, counters=lambda: {"queued": under_way}
    )
    ignore = lambda *_, **__: None  # noqa: E731
    loop = SimpleNamespace(stop_ticking=ignore, forget=ignore)
    line = SimpleNamespace(send=ignore, close=ignore)
    heartbeat = Heartbeat(loop, line, peer, 5, timeout_s=5.0, patience_s=5.0)

    heartbeat._on_message(wire.Bye(epoch=7, reason="closed"))
    before_the_tick = list(lost)
    if under_way:
        heartbeat.tick(time.monotonic(), 0.0)

    said = "it said goodbye: closed; connect again once it is back"
    assert before_the_tick == ([] if under_way else [said])
    assert lost == [said]
