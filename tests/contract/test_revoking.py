"""Decode takes back what it granted, and may reuse the blocks as soon as the call returns."""

from __future__ import annotations

import threading
import time

import pytest

from rdma_kv import NotQuiesced, PeerLost, TransferError, TransferRevoked
from support.cache import Shape
from support.outcome import ending
from support.patience import SCALE, eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of

LARGE = Shape(layers=2, blocks=512, block_bytes=max(4 << 10, round((16 << 10) / SCALE)))
EVERY = list(range(LARGE.blocks))
TURNED = EVERY[::-1]
ABORTED, OTHER = 7, 8


def test_a_revoked_tag_is_refused_and_its_notices_are_dropped(wire: Wire):
    prefill, decode = wire.pair()
    prefill.write(decode.address, [1], [2], tag=ABORTED)
    prefill.write(decode.address, [3], [4], tag=OTHER)

    decode.revoke(ABORTED)

    before = decode.digests()
    with pytest.raises(TransferRevoked, match=r"remote 6..6.*decode has revoked tag 7.*allow"):
        prefill.write(decode.address, [5], [6], tag=ABORTED)
    assert decode.digests() == before
    assert [tag for tag, *_ in decode.notices()] == [OTHER]
    with pytest.raises(TransferRevoked, match=r"revoked tag 7.*allow\(7\)"):
        decode.received(ABORTED, 10)


def test_a_tag_that_is_allowed_again_works_again(wire: Wire):
    prefill, decode = wire.pair()
    decode.revoke(ABORTED)

    decode.allow(ABORTED)

    wanted = image_of(decode)
    wanted.take(prefill.cache, [5], [6], range(3))
    prefill.write(decode.address, [5], [6], tag=ABORTED)
    decode.received(ABORTED, 10)
    assert decode.digests() == wanted.digests()


def test_writes_under_way_with_a_revoked_tag_land_no_more(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    tags = [OTHER, ABORTED, OTHER, ABORTED]
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=tags[i % 4])
        for i in range(12)
    ]

    decode.revoke(ABORTED)

    aborted = [ending(transfer) for i, transfer in enumerate(transfers) if tags[i % 4] == ABORTED]
    assert {type(error) for error in aborted} <= {type(None), TransferRevoked}  # None: too late
    others = [ending(transfer) for i, transfer in enumerate(transfers) if tags[i % 4] == OTHER]
    assert others == [None] * 6, "another tag must not suffer"
    decode.received(OTHER, 30, count=6)
    assert decode.notices() == []
    assert not decode.changed_within(0.5)


def test_after_a_revocation_the_blocks_stay_as_they_are(wire: Wire):
    """A sender that keeps on trying cannot touch them, from the instant of the return."""
    prefill, decode = wire.pair(LARGE)
    is_over = threading.Event()
    outcomes: list[type] = []

    def insist() -> None:
        while not is_over.is_set():
            try:
                prefill.comm.write_cache(*decode.address, EVERY, TURNED, tag=ABORTED)
                outcomes.append(type(None))
            except TransferError as error:
                outcomes.append(type(error))

    senders = [threading.Thread(target=insist) for _ in range(3)]
    for sender in senders:
        sender.start()
    try:
        eventually(lambda: type(None) in outcomes, 30, "a write has landed")
        decode.revoke(ABORTED)
        prefill.cache.fill(99)  # whatever lands from now on differs
        assert not decode.changed_within(1.0)
    finally:
        is_over.set()
        for sender in senders:
            sender.join()

    assert outcomes[-1] is TransferRevoked
    wanted = decode.digests()
    prefill.write(decode.address, [], [], tag=OTHER)
    decode.received(OTHER, 30)
    assert decode.digests() == wanted


def test_writes_without_a_notice_are_revoked_by_their_tag_too(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    prefill.comm.write_cache(*decode.address, [1], [2], tag=ABORTED, notify=False)
    prefill.write(decode.address, [], [], tag=OTHER)
    decode.received(OTHER, 30)
    assert decode.notices() == []
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=ABORTED, notify=False)
        for _ in range(12)
    ]

    decode.revoke(ABORTED)

    assert not decode.changed_within(0.5)
    assert {type(ending(transfer)) for transfer in transfers} <= {type(None), TransferRevoked}
    with pytest.raises(TransferRevoked):
        prefill.comm.write_cache(*decode.address, [1], [2], tag=ABORTED, notify=False)


def test_a_peer_that_connects_later_learns_what_is_revoked(wire: Wire):
    decode = wire.decode(Shape())
    decode.revoke(ABORTED)
    prefill = wire.prefill(Shape())
    assert prefill.connect(decode.address)

    with pytest.raises(TransferRevoked):
        prefill.write(decode.address, [1], [2], tag=ABORTED)

    prefill.write(decode.address, [1], [2], tag=OTHER)
    assert decode.digests() != image_of(decode).digests()


def test_a_revoked_peer_writes_no_more_until_it_connects(wire: Wire):
    prefill, decode = wire.pair(LARGE)
    [name] = decode.peer_names()
    transfers = [
        prefill.comm.write_cache_async(*decode.address, EVERY, TURNED, tag=OTHER) for _ in range(12)
    ]

    decode.revoke(name)

    assert not decode.changed_within(1.0)
    assert decode.notices() == []
    assert {type(ending(transfer)) for transfer in transfers} <= {type(None), PeerLost}
    for _ in range(2):
        with pytest.raises(PeerLost, match=r"decode has revoked all .* call connect\(\)"):
            prefill.write(decode.address, [1], [2])
    assert not decode.changed_within(0.1)
    [[peer, epoch, reason, is_quiesced]] = decode.departed()
    assert (peer, epoch, is_quiesced) == (name, prefill.epoch(), True)
    assert reason == "this side revoked all that it had granted to it"

    wanted = image_of(decode)
    wanted.take(prefill.cache, EVERY, EVERY, range(2))
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, EVERY, tag=1)
    decode.received(1, 30)
    assert decode.digests() == wanted.digests()


def test_revoking_one_peer_leaves_the_others_alone(wire: Wire):
    prefill, decode = wire.pair()
    other = wire.prefill(Shape())
    assert other.connect(decode.address)

    decode.revoke_epoch(prefill.epoch())

    other.write(decode.address, [1], [2], tag=3)
    decode.received(3, 10)
    with pytest.raises(PeerLost, match=r"revoked|ended"):
        prefill.write(decode.address, [1], [2])


def test_revoking_a_stranger_is_refused(wire: Wire):
    prefill, decode = wire.pair()
    [name] = decode.peer_names()

    with pytest.raises(ValueError, match=r"no peer is called 'nobody'; connected: .*pid"):
        decode.revoke("nobody")
    with pytest.raises(ValueError, match="tag is 0; must be from 1"):
        decode.revoke(0)

    prefill.disconnect(decode.address)
    eventually(lambda: decode.peer_names() == [], 10, "it is gone")
    decode.revoke(name)  # who is gone cannot write: no error


@pytest.mark.two_processes
def test_a_stopped_peer_is_revoked_or_the_call_says_not(wire: Wire, own_process: PeerProcess):
    """Prefill is stopped in the middle of its writes; decode aborts the request."""
    decode = wire.decode_here(LARGE)
    prefill = wire.prefill_in(own_process, LARGE)
    assert prefill.connect(decode.address)
    [name] = decode.peer_names()
    prefill.start("write_again_and_again", decode.address, EVERY, TURNED, tag=ABORTED)
    untouched = image_of(decode).digests()
    eventually(lambda: decode.digests() != untouched, 20, "bytes arrive")

    own_process.pause()
    is_quiesced = not wire.only_the_sender_stops
    if is_quiesced:
        decode.revoke(ABORTED, timeout_s=3)
    else:
        with pytest.raises(
            NotQuiesced, match=r"did not confirm in time .*is it stopped"
        ) as failure:
            decode.revoke(ABORTED, timeout_s=3)
        assert name in str(failure.value)
        assert [entry[0] for entry in decode.unquiesced()] == [name]

    assert [name, is_quiesced] in [[gone[0], gone[3]] for gone in decode.departed()]

    before = decode.digests()
    own_process.resume()
    if is_quiesced:
        assert not decode.changed_within(1.0)
        assert decode.digests() == before
    else:  # it settles by itself, and then nothing changes any more
        eventually(lambda: decode.unquiesced() == [], 10, "it has confirmed")
        assert not decode.changed_within(1.0)


def test_revoking_a_healthy_peers_tag_takes_no_second(wire: Wire):
    """A liveness bound, far above what it takes: a silent peer costs ANSWER_WITHIN_S."""
    _, decode = wire.pair()
    started = time.monotonic()

    for tag in range(1, 51):
        decode.revoke(tag)

    assert time.monotonic() - started < scaled(20)


@pytest.mark.two_processes
@pytest.mark.parametrize("how", ["told", "revoked"])
def test_who_was_given_up_comes_back_by_connecting_only(
    wire: Wire, own_process: PeerProcess, how: str
):
    """It is silent for too long, its blocks go to others, and then it goes on with its request."""
    decode = wire.decode_here(Shape(), KVCACHE_PEER_TIMEOUT_S=f"{scaled(1.0):g}")
    prefill = wire.prefill_in(own_process, Shape())
    assert prefill.connect(decode.address)
    [name] = decode.peer_names()
    own_process.pause()
    eventually(lambda: decode.peer_names() == [], 10, "it is given up")
    if how == "told":
        gone: list = []
        eventually(lambda: gone.extend(decode.departed()) or gone, 10, "it is told of")
        [[peer, _, reason, _]] = gone
        assert (peer, "sent nothing for" in reason) == (name, True)
    elif wire.only_the_sender_stops:  # stopped as it is, it cannot confirm
        with pytest.raises(NotQuiesced):
            decode.revoke(name, timeout_s=1)
    else:
        decode.revoke(name)
    before = decode.digests()

    own_process.resume()

    with pytest.raises(PeerLost):  # the end of its link may be news to it
        prefill.write(decode.address, [1], [2])
    with pytest.raises(PeerLost, match=r"call connect\(\)"):
        prefill.write(decode.address, [1], [2])
    assert decode.digests() == before
    assert prefill.connect(decode.address)
    prefill.write(decode.address, [1], [2], tag=OTHER)
    decode.received(OTHER, 10)


def test_a_link_that_is_replaced_at_once_is_no_departure(wire: Wire):
    prefill, decode = wire.prefill(Shape()), wire.decode_here(Shape())
    assert prefill.connect(decode.address)
    [(link_id, *_)] = decode.comm._engine.inbound_links()
    decode.comm._engine.end_link(link_id, "broken by the test", scaled(5))
    eventually(lambda: not prefill.is_connected(decode.address), 10, "it has noticed")

    prefill.write(decode.address, [1], [2], tag=OTHER)
    decode.received(OTHER, 10)
    eventually(lambda: len(decode.peer_names()) == 1, 10, "the former session has ended")
    time.sleep(scaled(1.2))  # longer than a session lives without a link

    assert decode.departed() == []
    prefill.write(decode.address, [1], [3])
