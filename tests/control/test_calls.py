"""Arguments of calls that cannot be taken."""

from __future__ import annotations

import pytest

import rdma_kv
from support.one_process import HOST


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
