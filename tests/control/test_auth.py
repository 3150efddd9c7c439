"""The shared secret: what is a usable file, and which keys come of it."""

from __future__ import annotations

import os

import pytest
import zmq

from rdma_kv import ConfigError
from rdma_kv._auth import derive_keys, load_keys

SECRET = b"a secret of enough bytes"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


def test_both_sides_derive_the_same_keys_from_a_secret():
    assert derive_keys(SECRET) == derive_keys(SECRET)


def test_the_two_ends_and_two_secrets_have_different_keys():
    one, other = derive_keys(SECRET), derive_keys(SECRET + b"!")

    secrets = {one.listening.secret, one.connecting.secret}
    assert len(secrets | {other.listening.secret, other.connecting.secret}) == 4


def test_a_public_key_belongs_to_its_secret_key():
    keys = derive_keys(SECRET)

    assert zmq.curve_public(keys.listening.secret) == keys.listening.public


def test_white_space_around_the_secret_does_not_count(key_file):
    assert load_keys(key_file) == derive_keys(SECRET)


def test_keys_do_not_show_in_messages():
    keys = derive_keys(SECRET)

    assert keys.listening.secret.decode() not in repr(keys)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(key_file, mode):
    key_file.chmod(mode)

    with pytest.raises(ConfigError, match=rf"{key_file}: its mode {mode:04o} .* `chmod 600"):
        load_keys(key_file)


def test_a_short_secret_is_refused(key_file):
    key_file.write_bytes(b"fifteen bytes..\n")

    with pytest.raises(ConfigError, match=r"15 bytes are too short .* at least 16"):
        load_keys(key_file)


def test_an_endless_secret_is_refused(key_file):
    key_file.write_bytes(b"x" * (1 << 17))

    with pytest.raises(ConfigError, match="longer than 65536 bytes"):
        load_keys(key_file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"KVCACHE_AUTH_KEY_FILE={tmp_path}/none: .*No such file"):
        load_keys(tmp_path / "none")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)

    with pytest.raises(ConfigError, match="not a regular file"):
        load_keys(path)
