"""Both ends of the control plane in one process, over the loopback transport."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import zmq

import rdma_kv
from rdma_kv import Config, Notice, RDMACommunicator
from rdma_kv import _messages as wire
from rdma_kv._heartbeat import Heartbeat

LAYERS, BLOCKS, BLOCK_BYTES = 2, 8, 64
LOOPBACK = Config(transport="loopback")
HOST = "127.0.0.1"


def cache(layers=LAYERS, block_bytes=BLOCK_BYTES, value=0):
    return [np.full((BLOCKS, block_bytes), value, np.uint8) for _ in range(layers)]


@pytest.fixture
def make():
    """Makes communicators, and closes them at the end."""
    made = []

    def make(role, *, port=0, config=LOOPBACK, keys=None, values=None, **more):
        keys = cache() if keys is None else keys
        values = cache() if values is None else values
        block_bytes = keys[0].shape[1]
        made.append(
            RDMACommunicator(
                role, -1, port, keys, values, BLOCKS, block_bytes, config=config, **more
            )
        )
        return made[-1]

    yield make
    for communicator in made:
        communicator.close()


@pytest.fixture
def secret(tmp_path):
    """Makes a configuration with a secret."""

    def secret(text):
        path = tmp_path / text
        path.write_text(text * 20)
        path.chmod(0o600)
        return replace(LOOPBACK, auth_key_file=path)

    return secret


@pytest.fixture
def stranger():
    """A socket that says what it likes to a decode side."""
    context = zmq.Context()
    line = context.socket(zmq.DEALER)
    line.linger = 0

    class Stranger:
        def connect(self, decode):
            line.connect(f"tcp://{HOST}:{decode.port}")
            return self

        def say(self, message):
            line.send(message if isinstance(message, bytes) else wire.encode(message))

        def ask(self, message):
            self.say(message)
            assert line.poll(5000), "no answer"
            return wire.decode_from_decode(line.recv())

        def hello(self, **changes):
            fields = {
                "epoch": 5,
                "role": "prefill",
                "host": wire.Host(boot_id="elsewhere", pid=1),
                "geometry": wire.Geometry(
                    layers=LAYERS,
                    block_count=BLOCKS,
                    tensors=[(0, BLOCK_BYTES, BLOCK_BYTES), (1, BLOCK_BYTES, BLOCK_BYTES)],
                ),
                "transports": ["tcp"],
            }
            return self.ask(wire.Hello(**fields | changes))

    yield Stranger()
    line.close()
    context.term()


@pytest.fixture
def impostor():
    """A decode side that answers the first message with given bytes."""
    context = zmq.Context()
    line = context.socket(zmq.ROUTER)
    line.linger = 0
    port = line.bind_to_random_port(f"tcp://{HOST}")
    answers = []

    def serve():
        if line.poll(5000):
            identity, _ = line.recv_multipart()
            for answer in answers:
                line.send_multipart([identity, answer])
            line.poll(5000)  # the goodbye, or the end of the test

    thread = threading.Thread(target=serve)

    def answer_with(*data):
        answers.extend(data)
        thread.start()
        return port

    yield answer_with
    if thread.ident:
        thread.join()
    line.close()
    context.term()


def eventually(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


# ---- the way it should be


def test_what_prefill_writes_is_there_when_its_notice_is(make):
    target = cache()
    decode = make("decode", keys=target)
    prefill = make("prefill", keys=cache(value=7))

    assert prefill.connect(HOST, str(decode.port)) is True
    prefill.write_cache(HOST, decode.port, [1], [6], 1, tag=9)
    decode.received(9, 5)

    assert (target[1][6] == 7).all()
    assert not target[0].any()


def test_connecting_again_keeps_the_connection(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    [before] = decode._engine.inbound_links()

    prefill.connect(HOST, decode.port)

    assert decode._engine.inbound_links() == [before]


def test_many_threads_that_connect_make_one_connection(make, caplog):
    caplog.set_level(logging.INFO, logger="rdma_kv")
    decode, prefill = make("decode"), make("prefill")
    threads = [
        threading.Thread(target=prefill.connect, args=(HOST, decode.port)) for _ in range(20)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([r for r in caplog.records if "connected to" in r.getMessage()]) == 1


def test_a_notice_says_which_life_of_the_peer_wrote(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    prefill.write_cache(HOST, decode.port, [], [], tag=4)

    eventually(lambda: decode.stats().inbound_links == 1)
    [notice] = decode.poll_received()
    assert notice == Notice(4, notice.peer, prefill.epoch)
    assert notice.peer.startswith(HOST)


def test_notices_come_one_by_one_in_asyncio_until_the_end(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    async def run():
        loop = asyncio.get_running_loop()
        tags = []
        await asyncio.gather(
            *(prefill.write_cache_async(HOST, decode.port, [i], [i], tag=i) for i in (1, 2, 3))
        )
        async for notice in decode:
            tags.append(notice.tag)
            if len(tags) == 3:
                loop.call_later(0.05, decode.close)
        return tags

    assert sorted(asyncio.run(asyncio.wait_for(run(), 10))) == [1, 2, 3]


def test_the_choice_and_its_reasons_are_logged_and_kept(make, caplog):
    caplog.set_level(logging.INFO, logger="rdma_kv")
    decode, prefill = make("decode", config=Config()), make("prefill", config=Config())

    prefill.connect(HOST, decode.port)

    [peer] = prefill.peers()
    assert {peer.transport, *peer.reasons} == {"cuda_ipc", "shm", "cma", "rdma", "tcp"}
    [line] = [r.getMessage() for r in caplog.records if "connected to" in r.getMessage()]
    assert peer.transport in line
    assert all(reason in line for reason in peer.reasons.values())


def test_a_decode_that_is_set_to_one_transport_offers_no_other(make):
    decode = make("decode", config=Config(transport="tcp"))
    prefill = make("prefill", config=Config())

    prefill.connect(HOST, decode.port)

    [peer] = prefill.peers()
    assert peer.transport == "tcp"
    assert peer.reasons["cma"] == "decode is set to KVCACHE_TRANSPORT=tcp"


# ---- refusals


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


# ---- peers that are not what they should be


def test_nobody_there_is_refused_at_once(make):
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()

    with pytest.raises(rdma_kv.HandshakeError, match=f"{HOST}:{port}: connection refused"):
        make("prefill").connect(HOST, port)

    assert time.monotonic() - started < 2


def test_a_silent_listener_costs_no_more_than_the_deadline(make):
    with socket.create_server((HOST, 0)) as server:
        started = time.monotonic()

        with pytest.raises(rdma_kv.HandshakeError, match="waiting for a greeting"):
            make("prefill").connect(HOST, server.getsockname()[1], timeout_s=0.3)

    assert time.monotonic() - started < 2


def test_a_peer_that_answers_nothing_is_given_up_with_what_was_waited_for(make, impostor):
    with pytest.raises(
        rdma_kv.HandshakeError, match=r"gave up after 0\.5 s waiting for its welcome"
    ):
        make("prefill").connect(HOST, impostor(), timeout_s=0.5)


def test_a_peer_of_another_version_is_refused_with_both_versions(make, impostor):
    port = impostor(msgspec.msgpack.encode({"magic": "RDMAKV", "version": 7}))

    with pytest.raises(rdma_kv.HandshakeError, match=r"version 7 .* this side 1"):
        make("prefill").connect(HOST, port)


def test_a_peer_that_speaks_something_else_is_refused(make, impostor):
    with pytest.raises(rdma_kv.HandshakeError, match="speaks something else"):
        make("prefill").connect(HOST, impostor(b"220 mail.example ESMTP"))


def test_a_name_without_an_address_is_an_error_of_its_own(make):
    with pytest.raises(rdma_kv.HandshakeError, match=r"the name 'no.such.host.invalid' has no"):
        make("prefill").connect("no.such.host.invalid", 1)


# ---- secrets


def test_both_sides_with_the_same_secret_connect(make, secret):
    decode = make("decode", config=secret("one"))
    prefill = make("prefill", config=secret("one"))

    assert prefill.connect(HOST, decode.port)


def test_another_secret_is_an_authentication_error(make, secret):
    decode = make("decode", config=secret("one"))

    with pytest.raises(rdma_kv.AuthenticationError, match="decode does not hold the secret"):
        make("prefill", config=secret("other")).connect(HOST, decode.port)


def test_a_prefill_without_the_secret_is_told_so(make, secret):
    decode = make("decode", config=secret("one"))

    with pytest.raises(rdma_kv.AuthenticationError, match="decode asks for a secret"):
        make("prefill").connect(HOST, decode.port)


def test_a_decode_without_the_secret_is_not_trusted(make, secret):
    decode = make("decode")

    with pytest.raises(rdma_kv.AuthenticationError, match="decode has no secret"):
        make("prefill", config=secret("one")).connect(HOST, decode.port)


def test_a_client_key_of_its_own_is_refused_by_the_gatekeeper(make, secret):
    from rdma_kv._auth import load_keys

    config = secret("one")
    decode = make("decode", config=config)
    context = zmq.Context()
    line = context.socket(zmq.DEALER)
    line.linger = 0
    line.curve_serverkey = load_keys(config.auth_key_file).listening.public
    line.curve_publickey, line.curve_secretkey = zmq.curve_keypair()

    line.connect(f"tcp://{HOST}:{decode.port}")
    line.send(b"hello?")

    assert not line.poll(500)
    line.close()
    context.term()


# ---- the end of a connection


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


def test_blocks_that_an_earlier_life_granted_are_not_written_in_the_next(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    port = decode.port
    decode.close()
    eventually(lambda: not prefill.is_connected(HOST, port))
    target = cache()
    make("decode", port=port, keys=target)

    with pytest.raises(rdma_kv.PeerLost, match=r"restarted: .* call connect\(\)"):
        prefill.write_cache(HOST, port, [0], [0])

    assert not any(layer.any() for layer in target)


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


def test_a_silent_prefill_is_ended_by_decode(make, stranger, monkeypatch):
    monkeypatch.setattr("rdma_kv._control.HEARTBEAT_PERIOD_S", 0.05)
    monkeypatch.setattr("rdma_kv._sessions.DEAD_AFTER_S", 0.3)
    decode = make("decode", config=Config(transport="tcp"))
    welcome = stranger.connect(decode).hello()
    stranger.ask(wire.Open(epoch=5, peer_epoch=welcome.epoch, transport="tcp"))

    eventually(lambda: decode._engine.inbound_links() == [])

    ping = wire.Ping(epoch=5, peer_epoch=welcome.epoch, sequence=1)
    assert stranger.ask(ping).code == wire.STALE_EPOCH


def test_a_silent_decode_is_lost_by_prefill(make, monkeypatch):
    monkeypatch.setattr("rdma_kv._control.HEARTBEAT_PERIOD_S", 0.05)
    monkeypatch.setattr("rdma_kv._heartbeat.DEAD_AFTER_S", 0.3)
    decode, prefill = make("decode"), make("prefill", reconnect=False)
    prefill.connect(HOST, decode.port)
    time.sleep(0.6)
    assert prefill.is_connected(HOST, decode.port)  # heartbeats are answered

    monkeypatch.setattr("rdma_kv._sessions.Sessions._send", lambda *_: None)

    eventually(lambda: not prefill.is_connected(HOST, decode.port))
    monkeypatch.undo()
    with pytest.raises(rdma_kv.PeerLost, match="no heartbeat from it"):
        prefill.write_cache(HOST, decode.port, [0], [0])


# ---- after the end


def test_every_call_after_close_says_so(make):
    decode, prefill = make("decode"), make("prefill")
    decode.close()
    prefill.close()
    calls = [
        lambda: prefill.connect(HOST, 1),
        lambda: prefill.is_connected(HOST, 1),
        lambda: prefill.disconnect(HOST, 1),
        lambda: prefill.write_cache(HOST, 1, [0], [0]),
        lambda: prefill.write_cache_async(HOST, 1, [0], [0]),
        lambda: prefill.stats(),
        lambda: prefill.peers(),
        lambda: decode.received(1, 1),
        lambda: decode.poll_received(),
        lambda: decode.fileno(),
        lambda: decode.stats(),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="communicator is closed"):
            call()


def test_closing_twice_is_no_error(make):
    for role in ("prefill", "decode"):
        communicator = make(role)
        communicator.close()
        communicator.close()


def test_who_waits_for_a_notice_is_woken_by_close(make):
    decode = make("decode")
    threading.Timer(0.2, decode.close).start()

    with pytest.raises(ValueError, match="communicator is closed"):
        decode.received(1, 30)


def listening_ports():
    """Of this process: other processes may take a port as soon as it is free."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            # What is no socket must not be tried: fromfd() would leave its copy open.
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            with socket.fromfd(int(descriptor.name), socket.AF_INET, socket.SOCK_STREAM) as line:
                if line.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(line.getsockname()[1])
        except OSError:  # no socket, or closed meanwhile
            continue
    return found


def test_a_forgotten_communicator_leaves_no_thread_and_no_port():
    before = set(threading.enumerate())
    decode = RDMACommunicator("decode", -1, 0, cache(), [], BLOCKS, BLOCK_BYTES, config=LOOPBACK)
    port, forgotten = decode.port, weakref.ref(decode)
    # Not a count: threads of earlier tests may end meanwhile.
    threads = set(threading.enumerate()) - before
    assert threads
    assert port in listening_ports()

    del decode
    gc.collect()

    assert forgotten() is None
    eventually(lambda: not any(thread.is_alive() for thread in threads))
    eventually(lambda: port not in listening_ports())


@pytest.mark.parametrize(
    ("arguments", "more", "kind", "words"),
    [
        ((None, 1), {}, TypeError, "ip is None"),
        ((127, 1), {}, TypeError, "ip is 127"),
        (("", 1), {}, ValueError, "ip is ''"),
        (("tcp://" + HOST, 1), {}, ValueError, "the port goes apart"),
        ((HOST, 1), {"timeout_s": -1}, ValueError, "timeout_s is -1; must be 0 or more"),
        ((HOST, 1), {"timeout_s": float("nan")}, ValueError, "timeout_s is nan"),
        ((HOST, 1), {"timeout_s": "3"}, TypeError, "timeout_s is '3'"),
        ((HOST, 1), {"timeout_s": float("inf")}, rdma_kv.HandshakeError, "connection refused"),
        ((f"{HOST}:80", 80), {}, rdma_kv.HandshakeError, "give a host .* without the port"),
    ],
)
def test_connect_names_what_it_cannot_take(make, arguments, more, kind, words):
    with pytest.raises(kind, match=words):
        make("prefill").connect(*arguments, **more)


def test_no_time_at_all_is_too_late_and_not_an_error_of_the_socket(make):
    with pytest.raises(rdma_kv.HandshakeTimeout, match="gave up after"):
        make("prefill").connect(HOST, make("decode").port, timeout_s=0)


def test_a_config_of_another_type_is_refused_by_name(make):
    with pytest.raises(TypeError, match="config is a dict; give a Config"):
        make("decode", config={"transport": "tcp"})


def test_a_range_without_layers_and_a_count_that_is_none_are_refused(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    with pytest.raises(ValueError, match=r"layer_idx is range\(0, 0\), which holds no layer"):
        prefill.write_cache(HOST, decode.port, [0], [0], range(0))
    with pytest.raises(TypeError, match=r"count is 1\.5; give a whole number"):
        decode.received(1, 1, count=1.5)


def test_a_port_in_use_is_named(make):
    decode = make("decode")

    with pytest.raises(rdma_kv.ConfigError, match=f"port {decode.port} .* in use"):
        make("decode", port=decode.port)


@pytest.mark.parametrize(
    ("role", "call"),
    [
        ("prefill", lambda c: c.received(1)),
        ("prefill", lambda c: c.poll_received()),
        ("prefill", lambda c: c.fileno()),
        ("decode", lambda c: c.connect(HOST, 1)),
        ("decode", lambda c: c.is_connected(HOST, 1)),
        ("decode", lambda c: c.disconnect(HOST, 1)),
        ("decode", lambda c: c.write_cache(HOST, 1, [0], [0])),
    ],
)
def test_a_call_of_the_other_role_says_so(make, role, call):
    other = {"prefill": "decode", "decode": "prefill"}[role]

    with pytest.raises(ValueError, match=f"is for role '{other}'; this side is '{role}'"):
        call(make(role))


def test_a_notice_that_does_not_come_names_tag_count_and_peers(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    prefill.write_cache(HOST, decode.port, [], [], tag=3)

    with pytest.raises(
        rdma_kv.TransferTimeout, match=rf"1 of 2 notices with tag 3 within 0.3 s; .*{HOST}"
    ):
        decode.received(3, 0.3, count=2)

    decode.received(3, 1)  # the one that came was not taken


# ---- checksums of every block


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


def test_closing_does_not_wait_for_ever_for_a_socket_of_another_thread(make):
    prefill = make("prefill")
    held = prefill._parts._context.socket(zmq.DEALER)
    closing = threading.Thread(target=prefill.close, kwargs={"timeout_s": 0.1}, daemon=True)

    closing.start()
    closing.join(10)
    has_ended = not closing.is_alive()
    held.close(linger=0)

    assert has_ended


@pytest.mark.parametrize("under_way", [0, 1])
def test_a_goodbye_leaves_time_for_confirmations_under_way(under_way):
    lost = []
    peer = SimpleNamespace(
        alive=True, name="peer", epoch=7, lose=lost.append, counters=lambda: {"queued": under_way}
    )
    ignore = lambda *_, **__: None  # noqa: E731
    loop = SimpleNamespace(stop_ticking=ignore, forget=ignore)
    line = SimpleNamespace(send=ignore, close=ignore)
    heartbeat = Heartbeat(loop, line, peer, 5)

    heartbeat._on_message(wire.Bye(epoch=7, reason="closed"))
    before_the_tick = list(lost)
    if under_way:
        heartbeat.tick(time.monotonic(), 0.0)

    assert before_the_tick == ([] if under_way else ["it said goodbye: closed"])
    assert lost == ["it said goodbye: closed"]


def test_the_garbage_collector_may_end_a_communicator_on_its_own_control_thread():
    holder = [RDMACommunicator("decode", -1, 0, cache(), [], BLOCKS, BLOCK_BYTES, config=LOOPBACK)]
    loop, port = holder[0]._parts._loop, holder[0].port
    holder[0].itself = holder[0]

    def collect():
        holder.clear()
        gc.collect()

    loop.run(collect, 10)

    eventually(lambda: not loop._thread.is_alive())
    eventually(lambda: port not in listening_ports())


def test_who_asks_for_checksums_is_woken_when_the_peer_goes():
    ignore = lambda *_, **__: None  # noqa: E731
    peer = SimpleNamespace(alive=True, name="peer", epoch=7, lose=ignore)
    loop = SimpleNamespace(post=lambda task: task() or True, stop_ticking=ignore, forget=ignore)
    heartbeat = Heartbeat(loop, SimpleNamespace(send=ignore, close=ignore), peer, 5)
    threading.Timer(0.1, heartbeat.stop, ["the peer went"]).start()
    started = time.monotonic()

    assert heartbeat.ask(0, 0, [1], [2], 20) is None
    assert heartbeat.ask(0, 0, [1], [2], 20) is None

    assert time.monotonic() - started < 10
