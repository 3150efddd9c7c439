"""What a path to the secret may lead to; modes, lengths and pipes are in control/test_auth.py."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rdma_kv import ConfigError
from rdma_kv._auth import derive_keys, load_keys

SECRET = b"a secret of enough bytes"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def link_to(target: Path) -> Path:
    link = target.with_name("link")
    link.symlink_to(target)
    return link


def test_a_symbolic_link_counts_as_what_it_leads_to(key_file):
    assert load_keys(link_to(key_file)) == derive_keys(SECRET)

    key_file.chmod(0o644)

    with pytest.raises(ConfigError, match="its mode 0644 lets others at the secret"):
        load_keys(key_file.with_name("link"))


def test_a_link_to_nowhere_and_one_to_itself_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_keys(link_to(tmp_path / "missing"))
    itself = tmp_path / "itself"
    itself.symlink_to(itself)

    with pytest.raises(ConfigError, match="symbolic links"):
        load_keys(itself)


def test_a_file_that_another_user_owns_is_refused(key_file, monkeypatch):
    owner = key_file.stat().st_uid
    me = owner + 1
    monkeypatch.setattr(os, "geteuid", lambda: me)
    if owner == 0:  # root's files are taken from everybody: give this one away
        os.chown(key_file, 2, -1)
        owner = 2

    with pytest.raises(ConfigError, match=rf"user {owner} owns it .* `chown {me} {key_file}`"):
        load_keys(key_file)


@pytest.mark.parametrize("kind", ["directory", "device", "socket"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir(0o700)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))

    with pytest.raises(ConfigError, match=f"KVCACHE_AUTH_KEY_FILE={path}: "):
        load_keys(path)


@pytest.mark.parametrize("content", [b"", b"\n \t", b" " * 100 + b"fifteen bytes.." + b"\n" * 100])
def test_white_space_is_no_secret(key_file, content):
    key_file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"bytes are too short for a secret"):
        load_keys(key_file)


def test_no_refusal_quotes_the_file(key_file):
    key_file.write_bytes(b"fifteen bytes..")

    with pytest.raises(ConfigError) as refusal:
        load_keys(key_file)

    assert "fifteen" not in f"{refusal.value!r} {refusal.value}"
