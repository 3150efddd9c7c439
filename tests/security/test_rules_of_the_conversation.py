"""Messages out of turn, of other sessions, and without end: refused, and without any effect."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from rdma_kv import _messages as wire
from tests.security.conftest import HOST, Stranger, good_hello, links_of, writes

NONSENSE = b""  # its answer is told from all others, and says that what came before was read


@pytest.fixture
def victim(make):
    """A decode and a healthy prefill that writes to it."""
    decode, prefill = make("decode"), make("prefill")
    assert prefill.connect(HOST, decode.port)
    yield decode, prefill
    assert writes(prefill, decode, tag=77), "the healthy peer was harmed"


def refusal(answer: wire.FromDecode) -> str:
    assert isinstance(answer, wire.Refused), answer
    return answer.code


def opened(stranger: Stranger, epoch: int, welcome: wire.Welcome) -> wire.Opened:
    answer = stranger.ask(wire.Open(epoch=epoch, peer_epoch=welcome.epoch, transport="tcp"))
    assert isinstance(answer, wire.Opened), answer
    return answer


def test_nobody_ends_the_link_of_another_session(victim, stranger):
    decode, _ = victim
    healthy = links_of(decode)
    hostile = stranger(decode)
    welcome = hostile.greet(5)

    for link in healthy:
        hostile.say(wire.CloseLink(epoch=5, peer_epoch=welcome.epoch, link_id=link[0]))
    ours = opened(hostile, 5, welcome)

    assert {link[0] for link in links_of(decode)} == {link[0] for link in healthy} | {ours.link_id}


def test_nobody_speaks_in_the_name_of_another_session(victim, stranger):
    decode, prefill = victim
    before = links_of(decode)
    epoch = prefill._engine.epoch
    here = {"epoch": epoch, "peer_epoch": decode._engine.epoch}
    for has_greeted in (False, True):
        hostile = stranger(decode)
        if has_greeted:
            hostile.greet(5)
        for message in (
            wire.Ping(**here, sequence=1),
            wire.Open(**here, transport="tcp"),
            wire.CloseLink(**here, link_id=before[0][0]),
            wire.Verify(**here, sequence=1, layer=0, tensor=0, blocks=[0], checksums=[0]),
        ):
            assert refusal(hostile.ask(message)) == wire.STALE_EPOCH
        hostile.say(wire.Bye(epoch=epoch))
        assert refusal(hostile.ask(wire.Ping(**here, sequence=2))) == wire.STALE_EPOCH

    assert links_of(decode) == before


def test_a_copy_of_anothers_hello_makes_a_session_of_its_own(victim, stranger):
    decode, prefill = victim
    before = links_of(decode)
    copycat = stranger(decode)

    welcome = copycat.greet(prefill._engine.epoch)
    copycat.say(wire.Bye(epoch=prefill._engine.epoch))
    copycat.ask(wire.Ping(epoch=1, peer_epoch=welcome.epoch, sequence=1))

    assert links_of(decode) == before


@pytest.mark.parametrize("seed", range(10))
def test_no_order_of_messages_leaves_more_than_the_rules_allow(victim, stranger, seed):
    decode, _ = victim
    before = len(links_of(decode))
    dice = random.Random(seed)
    hostile = stranger(decode)
    peer_epoch = decode._engine.epoch
    talk: list[Any] = [
        good_hello(epoch, **more)
        for epoch, more in ((5, {}), (5, {}), (6, {}), (7, {"role": "decode"}))
    ]
    for epoch in (5, 6, 9):
        here = {"epoch": epoch, "peer_epoch": peer_epoch}
        talk += [wire.Open(**here, transport=name) for name in ("tcp", "tcp", "rdma", "", "magic")]
        talk += [wire.Ping(**here, sequence=1), wire.CloseLink(**here, link_id=3)]
        talk += [wire.Open(epoch=epoch, peer_epoch=1, transport="tcp")]
    talk = dice.choices(talk, k=150)

    opened_links = 0
    for message in talk:
        hostile.say(message)
        answer = hostile.ask(NONSENSE)
        while not (isinstance(answer, wire.Refused) and answer.code == wire.MALFORMED):
            opened_links += isinstance(answer, wire.Opened)
            answer = hostile.hear()

    assert len(links_of(decode)) - before <= min(opened_links, 16)
    hostile.say(wire.Bye(epoch=dice.choice([5, 6])))
    hostile.greet(10)
    assert len(links_of(decode)) == before


def test_checksums_without_end_are_refused_one_by_one(victim, stranger):
    decode, _ = victim
    hostile = stranger(decode)
    welcome = hostile.greet(5)
    many = list(range(8192))

    for sequence in range(200):
        answer = hostile.ask(
            wire.Verify(
                epoch=5, peer_epoch=welcome.epoch, sequence=sequence, layer=0, tensor=0,
                blocks=many, checksums=many,
            )
        )  # fmt: skip

        assert refusal(answer) == wire.UNAVAILABLE


def changed(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.to_builtins(good_hello(5)) | fields)


WHOLE = wire.encode(good_hello(5))
# A later version may mean anything by its other keys; nothing of them may be looked at.
FUTURE = {"type": "greetings", "geometry": "spherical"}
BAD: dict[str, tuple[bytes, str]] = {
    "a version from the future": (changed(version=2, **FUTURE), wire.WRONG_VERSION),
    "the last version there can be": (changed(version=2**64 - 1), wire.WRONG_VERSION),
    "a version before the first": (changed(version=0), wire.WRONG_VERSION),
    "a version that is text": (changed(version="1"), wire.MALFORMED),
    "another magic": (changed(magic="RDMAKW"), wire.MALFORMED),
    "too many transports": (changed(transports=["tcp"] * 17), wire.MALFORMED),
    "a name too long": (changed(transports=["x" * 65]), wire.MALFORMED),
    "a name of two lines": (changed(transports=["x\nERROR all is lost"]), wire.MALFORMED),
    "a name with an escape": (changed(role="\x1b[2J"), wire.MALFORMED),
    "no epoch": (changed(epoch=0), wire.MALFORMED),
    "a message of decode": (wire.encode(wire.Pong(epoch=5, sequence=1)), wire.MALFORMED),
    "more after the end": (WHOLE + b"\x00", wire.MALFORMED),
    "deep": (b"\x91" * 200_000, wire.MALFORMED),
    "a map that claims four billion": (b"\xdf\xff\xff\xff\xff" + WHOLE[1:], wire.MALFORMED),
    "a text that claims four gigabytes": (b"\x81\xdb\xff\xff\xff\xffa", wire.MALFORMED),
    "as large as may be": (changed(role="x" * (255 << 10)), wire.MALFORMED),
} | {f"cut after {cut}": (WHOLE[:cut], wire.MALFORMED) for cut in range(0, len(WHOLE), 13)}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_refused_and_forgotten(victim, stranger, name):
    decode, _ = victim
    before = decode._parts.connected_names(), links_of(decode)
    message, code = BAD[name]

    answer = stranger(decode).ask(message)

    assert refusal(answer) == code
    assert (decode._parts.connected_names(), links_of(decode)) == before


def test_a_message_that_is_too_large_ends_its_connection_and_no_other(victim, stranger):
    decode, _ = victim
    before = decode._parts.connected_names()
    hostile = stranger(decode)

    hostile.say(b"x" * ((256 << 10) + 1))

    assert not hostile.line.poll(300)
    assert decode._parts.connected_names() == before
