"""CurveZMQ from a shared secret: who has it, who has not."""

from __future__ import annotations

import pytest
import zmq

import rdma_kv
from support.one_process import HOST


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
