"""Who was sent away is back once it has connected, not as soon as it tries to."""

from __future__ import annotations

from rdma_kv import _messages as wire
from support.patience import eventually
from tests.security.conftest import good_hello, links_of

EPOCH = 77


def linked(stranger, decode):
    """A stranger as far as a link; and decode's epoch."""
    line = stranger(decode)
    epoch = line.greet(EPOCH).epoch
    opened = line.ask(wire.Open(epoch=EPOCH, peer_epoch=epoch, transport="tcp"))
    assert isinstance(opened, wire.Opened), opened
    return line, epoch


def automatic(stranger, decode) -> wire.FromDecode:
    return stranger(decode).ask(good_hello(EPOCH, automatic=True))


def is_refused(answer: wire.FromDecode) -> bool:
    return isinstance(answer, wire.Refused) and answer.code == wire.PEER_REVOKED


def pinged(line, epoch: int) -> None:
    assert isinstance(line.ask(wire.Ping(epoch=EPOCH, peer_epoch=epoch, sequence=1)), wire.Pong)


def test_a_connect_that_fails_after_its_hello_opens_no_door(make, stranger):
    decode = make("decode")
    linked(stranger, decode)
    decode.revoke("127.0.0.1 (pid 1)")  # as its hello said
    assert is_refused(automatic(stranger, decode))

    again = stranger(decode)
    epoch = again.greet(EPOCH).epoch  # connect(), as far as that

    assert is_refused(automatic(stranger, decode))
    pinged(again, epoch)
    assert isinstance(automatic(stranger, decode), wire.Welcome)


def test_who_only_tries_to_come_back_is_told_of_after_all(make, stranger):
    decode = make("decode")
    line, _ = linked(stranger, decode)
    coming = stranger(decode)
    coming.greet(EPOCH)
    line.say(wire.Bye(epoch=EPOCH, reason="the test says so"))
    eventually(lambda: links_of(decode) == [], 10, "its session has ended")

    assert decode.poll_departed() == []

    coming.say(wire.Bye(epoch=EPOCH, reason="no transport would open"))
    gone: list = []
    eventually(lambda: gone.extend(decode.poll_departed()) or gone, 10, "it is told of")
    assert "the test says so" in gone[0].reason
    assert decode.poll_departed() == []


def test_who_is_back_did_not_go(make, stranger):
    decode = make("decode")
    line, _ = linked(stranger, decode)
    line.say(wire.Bye(epoch=EPOCH, reason="the test says so"))
    eventually(lambda: decode.peers() == [], 10, "the session has ended")

    again, epoch = linked(stranger, decode)
    pinged(again, epoch)

    assert decode.poll_departed() == []
