"""CurveZMQ keys from a secret that both sides share, and who may connect with them."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from rdma_kv._errors import ConfigError

LEAST_SECRET_BYTES = 16
_MOST_SECRET_BYTES = 1 << 16

# The address at which ZeroMQ asks whether a client may connect (ZMTP's ZAP, RFC 27).
ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"


@dataclass(frozen=True)
class KeyPair:
    """A Curve25519 key pair in the text form of ZeroMQ."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"


@dataclass(frozen=True)
class Keys:
    """Both ends' pairs: whoever holds the secret knows both, nobody else knows either."""

    listening: KeyPair
    connecting: KeyPair


def load_keys(path: Path) -> Keys:
    """Derives the keys from the file of KVCACHE_AUTH_KEY_FILE.

    Raises:
        ConfigError: The file cannot be read, may be read or is owned by others, or is too short.
    """
    where = f"KVCACHE_AUTH_KEY_FILE={path}"
    try:
        # Non-blocking: the open of a pipe that nobody writes to would wait for ever.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{where}: not a regular file; give a file that holds the secret")
            mode = stat.S_IMODE(status.st_mode)
            owner = status.st_uid
            secret = file.read(_MOST_SECRET_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(f"{where}: cannot read it: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(
            f"{where}: its mode {mode:04o} lets others at the secret; run `chmod 600 {path}`"
        )
    # Asked of what the path leads to: Kubernetes mounts each secret as a symbolic link.
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"{where}: user {owner} owns it and could put another secret there; "
            f"run `chown {os.geteuid()} {path}`"
        )
    if len(secret) < LEAST_SECRET_BYTES:
        raise ConfigError(
            f"{where}: {len(secret)} bytes are too short for a secret; at least "
            f"{LEAST_SECRET_BYTES}, as from `head -c 32 /dev/urandom | base64`"
        )
    if len(secret) > _MOST_SECRET_BYTES:
        raise ConfigError(f"{where}: longer than {_MOST_SECRET_BYTES} bytes: not a secret file?")
    if not zmq.has("curve"):
        raise ConfigError(f"{where}: this build of pyzmq has no CURVE; install one from PyPI")
    return derive_keys(secret)


def derive_keys(secret: bytes) -> Keys:
    """Two independent key pairs; the labels keep one from being the other."""
    return Keys(_derive(secret, b"rdma_kv listen"), _derive(secret, b"rdma_kv connect"))


def _derive(secret: bytes, label: bytes) -> KeyPair:
    raw = hashlib.blake2b(secret, digest_size=32, person=label).digest()
    text = z85.encode(raw)
    return KeyPair(public=zmq.curve_public(text), secret=text)


class Gatekeeper:
    """Answers ZeroMQ's question who may connect: only the holder of the derived client key.

    Without keys everybody may. But where it is asked, ZeroMQ lets in nobody who speaks ZMTP 1 or 2,
    in which any byte begins a name: from the second peer of a name it reads nothing, and may then
    never close it (libzmq issues 3238 and 4407), so that noise would use up our descriptors.

    Lives on the control thread. Its socket must be bound before the listening one.
    """

    def __init__(self, context: zmq.Context[Any], keys: Keys | None) -> None:
        self.socket: zmq.Socket[Any] = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)
        self._credentials = (
            [b"CURVE", z85.decode(keys.connecting.public)] if keys is not None else [b"NULL"]
        )
        self.refused = 0

    def on_readable(self) -> None:
        """Answers what waits."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if b"" not in frames:
                continue
            split = frames.index(b"") + 1
            self.socket.send_multipart([*frames[:split], *self._answer(frames[split:])])

    def _answer(self, request: list[bytes]) -> list[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials...
        request_id = request[1] if len(request) > 1 else b""
        is_known = request[:1] == [_ZAP_VERSION] and request[5:] == self._credentials
        if is_known:
            return [_ZAP_VERSION, request_id, b"200", b"OK", b"peer", b""]
        self.refused += 1
        return [_ZAP_VERSION, request_id, b"400", b"not the client key of the secret", b"", b""]
