"""What decode refuses, and what a refused peer learns."""

from __future__ import annotations

import msgspec
import pytest

import rdma_kv
from rdma_kv import Config
from rdma_kv import _messages as wire
from support.one_process import HOST, cache


def test_other_layers_are_refused_with_both_values(make):
    decode = make("decode")
    prefill = make("prefill", keys=cache(layers=3), values=cache(layers=3))

    with pytest.raises(rdma_kv.LayoutMismatch, match="prefill has 3, decode has 2"):
        prefill.connect(HOST, decode.port)


def test_other_block_bytes_are_refused_with_both_values(make):
    decode = make("decode")
    prefill = make("prefill", keys=cache(block_bytes=32), values=cache(block_bytes=32))

    with pytest.raises(rdma_kv.LayoutMismatch, match=r"32 bytes a block.* 64 bytes a block"):
        prefill.connect(HOST, decode.port)


def test_a_refused_prefill_learns_no_address(make, stranger):
    decode = make("decode")
    other = wire.Geometry(layers=1, block_count=1, tensors=[(0, 1, 1)])

    answer = stranger.connect(decode).hello(geometry=other)

    assert isinstance(answer, wire.Refused)
    assert answer.code == wire.LAYOUT_MISMATCH


def test_a_transport_that_decode_lacks_fails_when_it_is_forced(make):
    decode = make("decode", config=Config(transport="tcp"))
    prefill = make("prefill", config=Config(transport="cma"))

    with pytest.raises(rdma_kv.TransportUnavailable, match=r"cma: decode is set to .*=tcp"):
        prefill.connect(HOST, decode.port)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"garbage", wire.MALFORMED),
        (msgspec.msgpack.encode({"magic": "RDMAKV", "version": 2}), wire.WRONG_VERSION),
        (wire.Ping(epoch=1, peer_epoch=1, sequence=1), wire.STALE_EPOCH),
        (wire.Open(epoch=1, peer_epoch=1, transport="tcp"), wire.STALE_EPOCH),
    ],
    ids=["garbage", "version", "ping", "open"],
)
def test_decode_answers_strangers_with_a_refusal(make, stranger, message, code):
    answer = stranger.connect(make("decode")).ask(message)

    assert isinstance(answer, wire.Refused)
    assert answer.code == code


def test_only_a_prefill_may_connect(make, stranger):
    answer = stranger.connect(make("decode")).hello(role="decode")

    assert (answer.code, answer.ours, answer.theirs) == (wire.WRONG_ROLE, "decode", "decode")


@pytest.mark.parametrize("wrong", ["epoch", "peer_epoch"])
def test_a_message_of_another_epoch_has_no_effect(make, stranger, wrong):
    decode = make("decode", config=Config(transport="tcp"))
    welcome = stranger.connect(decode).hello()
    right = {"epoch": 5, "peer_epoch": welcome.epoch}

    answer = stranger.ask(wire.Open(**right | {wrong: 99}, transport="tcp"))

    assert answer.code == wire.STALE_EPOCH
    assert decode._engine.inbound_links() == []


def test_links_that_are_never_used_are_bounded(make, stranger):
    decode = make("decode", config=Config(transport="tcp"))
    welcome = stranger.connect(decode).hello()
    request = wire.Open(epoch=5, peer_epoch=welcome.epoch, transport="tcp")

    answers = [stranger.ask(request) for _ in range(20)]

    assert [type(a) for a in answers] == [wire.Opened] * 16 + [wire.Refused] * 4
    assert answers[-1].code == wire.BUSY


def test_a_second_hello_ends_the_links_of_the_first(make, stranger):
    decode = make("decode", config=Config(transport="tcp"))
    welcome = stranger.connect(decode).hello()
    stranger.ask(wire.Open(epoch=5, peer_epoch=welcome.epoch, transport="tcp"))

    stranger.hello(epoch=6)

    assert decode._engine.inbound_links() == []


def test_checksums_are_made_for_nobody_who_did_not_ask_at_the_start(make, stranger):
    welcome = stranger.connect(make("decode")).hello()

    answer = stranger.ask(
        wire.Verify(
            epoch=5,
            peer_epoch=welcome.epoch,
            sequence=1,
            layer=0,
            tensor=0,
            blocks=[0],
            checksums=[0],
        )
    )

    assert answer.code == wire.UNAVAILABLE
