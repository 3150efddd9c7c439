"""Addresses where no decode side of ours answers."""

from __future__ import annotations

import socket
import time

import msgspec
import pytest

import rdma_kv
from support.one_process import HOST


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
