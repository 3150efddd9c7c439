"""With a key file nobody without the secret connects, learns a key or a port."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdma_kv import AuthenticationError, ConfigError, HandshakeError
from support.cache import Shape
from support.wire import Wire, image_of


@pytest.fixture
def secret(tmp_path: Path):
    def write(name: str, content: bytes, mode: int = 0o600) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    return write


def with_key(path: str) -> dict[str, str]:
    return {"KVCACHE_AUTH_KEY_FILE": path}


def test_the_same_secret_opens_the_way(wire: Wire, secret):
    content = b"a secret of more than thirty-two bytes for both"
    decode = wire.decode(Shape(), **with_key(secret("decode", content)))
    prefill = wire.prefill(Shape(), **with_key(secret("prefill", content)))
    wanted = image_of(decode)
    wanted.take(prefill.cache, [1, 2], [3, 4], range(3))

    assert prefill.connect(decode.address)
    prefill.write(decode.address, [1, 2], [3, 4], tag=1)
    decode.received(1, 10)

    assert decode.digests() == wanted.digests()


@pytest.mark.one_transport
def test_another_secret_is_refused(wire: Wire, secret):
    decode = wire.decode(Shape(), **with_key(secret("one", b"one secret of enough bytes, really")))
    prefill = wire.prefill(Shape(), **with_key(secret("two", b"another secret of enough bytes!!")))

    with pytest.raises(AuthenticationError, match="KVCACHE_AUTH_KEY_FILE"):
        prefill.connect(decode.address, 5)


@pytest.mark.one_transport
def test_no_secret_is_refused(wire: Wire, secret):
    key = with_key(secret("key", b"one secret of enough bytes, really"))
    decode = wire.decode(Shape(), **key)
    prefill = wire.prefill(Shape())

    with pytest.raises(HandshakeError, match="KVCACHE_AUTH_KEY_FILE"):
        prefill.connect(decode.address, 5)


@pytest.mark.one_transport
def test_a_secret_towards_an_open_decode_side_is_refused(wire: Wire, secret):
    key = with_key(secret("key", b"one secret of enough bytes, really"))
    decode = wire.decode(Shape())
    prefill = wire.prefill(Shape(), **key)

    with pytest.raises(HandshakeError, match="KVCACHE_AUTH_KEY_FILE"):
        prefill.connect(decode.address, 5)


@pytest.mark.one_transport
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_file_that_others_may_read_is_refused(wire: Wire, secret, mode: int):
    path = secret("loose", b"one secret of enough bytes, really", mode)

    with pytest.raises(ConfigError, match=f"{mode:o}|chmod") as refusal:
        wire.prefill(Shape(), **with_key(path))

    assert path in str(refusal.value)
    assert "one secret" not in str(refusal.value)


@pytest.mark.one_transport
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_key_file_that_is_missing_or_empty_is_refused(
    wire: Wire, secret, role: str, tmp_path: Path
):
    for path in (str(tmp_path / "missing"), secret("empty", b""), str(tmp_path)):
        with pytest.raises(ConfigError) as refusal:
            getattr(wire, role)(Shape(), **with_key(path))

        assert path in str(refusal.value)
