"""What must never be read in a log, an error or a repr, at the most talkative setting."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

import rdma_kv
from rdma_kv import _messages as wire
from rdma_kv._auth import load_keys
from tests.security.conftest import HOST, SECRET, TCP, good_hello, links_of, writes


def spellings(secret: bytes) -> set[str]:
    """How bytes may look in a text."""
    return {secret.hex(), secret.decode("latin-1"), repr(secret)[2:-1], str(list(secret))}


def numbers(value: int) -> set[str]:
    return {str(value), f"{value:x}"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[wire.Opened]:
    """All that decode gave out."""
    kept: list[wire.Opened] = []
    encode = wire.encode

    def keep(message: wire.Message) -> bytes:
        if isinstance(message, wire.Opened):
            kept.append(message)
        return encode(message)

    monkeypatch.setattr(wire, "encode", keep)
    return kept


def test_a_whole_life_with_its_failures_tells_no_secret(
    make, secret, stranger, opened, caplog, monkeypatch, tmp_path
):
    monkeypatch.setattr(rdma_kv._logging, "_added", {})
    config = replace(secret(), debug=True)
    texts = []
    with caplog.at_level(logging.DEBUG, logger="rdma_kv"):
        decode, prefill = make("decode", config), make("prefill", config)
        assert prefill.connect(HOST, decode.port)
        assert writes(prefill, decode)
        for other in (secret("another secret of enough bytes"), TCP):
            with pytest.raises(rdma_kv.AuthenticationError) as refused:
                make("prefill", other).connect(HOST, decode.port)
            texts.append(str(refused.value))
        monkeypatch.setattr(decode._parts._listening.sessions, "_bases", [1])  # a broken decode
        with pytest.raises(rdma_kv.HandshakeError) as broken:
            make("prefill", config).connect(HOST, decode.port)
        texts.append(str(broken.value))
        held = [prefill._parts.side, decode._parts.side, prefill.stats(), decode.stats(), opened]
        bases = [base for base, _, _ in decode._engine.layout.regions]
        decode.close()
        with pytest.raises(rdma_kv.TransferError) as lost:
            prefill.write_cache(HOST, decode.port, [1], [2], 0)
        texts.append(str(lost.value))
        prefill.close()
    texts += [record.getMessage() for record in caplog.records]
    texts += [record.exc_text or "" for record in caplog.records]
    texts += [repr(thing) for thing in held]
    told = "\n".join(texts)

    assert len(caplog.records) >= 4
    assert opened
    keys = load_keys(config.auth_key_file)
    forbidden = spellings(SECRET.encode())
    for pair in (keys.listening, keys.connecting):
        forbidden |= spellings(pair.secret)
    for message in opened:
        forbidden |= spellings(message.token)
    for base in bases:
        forbidden |= numbers(base)
    assert [text for text in forbidden if text in told] == []


def test_an_rkey_and_a_token_do_not_show_in_a_message():
    gid = bytes(16)
    rail = wire.Rail(
        nic="rxe0", port=1, gid=gid, lid=0, mtu=1024, link_layer="Ethernet", rkeys=[424242]
    )
    offers = wire.Offers(rdma=wire.RdmaOffer(rails=[rail], flush=False))

    assert "rxe0" in repr(offers)
    assert "424242" not in repr(offers)
    assert "secret token" not in repr(wire.Opened(epoch=1, link_id=2, token=b"secret token    "))


def test_a_peer_cannot_forge_a_line_of_the_log(make, stranger, caplog):
    decode = make("decode")
    hostile = stranger(decode)
    forged = "all is well\n2026-11-22 ERROR rdma_kv: all is lost \x1b[2J\u2028"
    tensors = [(0, 1, 1)]
    with caplog.at_level(logging.DEBUG, logger="rdma_kv"):
        for message in (
            good_hello(5, geometry=wire.Geometry(layers=1, block_count=1, tensors=tensors,
                                                 dtype=forged)),
            good_hello(5, role=forged),
        ):  # fmt: skip
            answer = hostile.ask(message)
            assert isinstance(answer, wire.Refused)
            assert answer.code == wire.MALFORMED
        hostile.greet(5)
        hostile.say(wire.Bye(epoch=5, reason=forged))
        assert isinstance(hostile.ask(b""), wire.Refused)

    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert links_of(decode) == []


def test_a_sentence_of_our_own_is_cleaned_rather_than_refused(make, stranger):
    said = wire.Bye(epoch=5, reason=wire.sentence("one\ntwo\x1b"))

    assert wire.decode_from_prefill(wire.encode(said)).reason == "one two "
