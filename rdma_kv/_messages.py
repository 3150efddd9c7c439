"""The messages of the control plane: what they hold, and within which bounds.

Both sides parse what comes from the network here and nowhere else. `docs/wire.md` has the grammar
and one message down to its bytes; a test keeps that page and this module equal.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

MAGIC: Final = "RDMAKV"
VERSION = 1

# The welcome is the only large message: 16384 addresses, and keys of each rail.
MOST_MESSAGE_BYTES = 4 << 20
# What the listening side takes from a peer that it does not know yet: no message to it is large.
MOST_REQUEST_BYTES = 256 << 10

MOST_REGIONS = 4096 * 4
# A NIC that cannot register a region at once has several keys for it.
MOST_KEYS = 1 << 17
MOST_RAILS = 16
# Allocations that a cache in GPU memory lies in.
MOST_PIECES = 16384
MOST_QUEUE_PAIRS = 64
MOST_STREAMS = 64
MOST_VERIFIED_BLOCKS = 8192
MOST_SENTENCE = 1000
# Revoked tags that are remembered (src/engine/revoked_tags.h): 320 KiB of a welcome at most.
MOST_REVOKED = 65536
# One more than a session may have.
MOST_ENDED_LINKS = 16

# Slots of a staged link, and bytes of one (src/transport/staged/limits.h).
MOST_SLOTS = 64
MOST_SLOT_BYTES = 256 << 20

# msgpack itself ends integers at 2**64 - 1.
U64 = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U24 = Annotated[int, Meta(ge=0, le=2**24 - 1)]
U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
Tag = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Port = Annotated[int, Meta(ge=1, le=2**16 - 1)]
Pid = Annotated[int, Meta(ge=1, le=2**31 - 1)]
# Texts of a peer end up in log lines and errors: they must not be able to forge a line there.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
Name = Annotated[str, Meta(max_length=64, pattern=rf"\A[^{_CONTROL}]*\Z")]
Sentence = Annotated[str, Meta(max_length=MOST_SENTENCE, pattern=rf"\A[^{_CONTROL}]*\Z")]
Gid = Annotated[bytes, Meta(min_length=16, max_length=16)]

# (kind, block_bytes, stride_bytes): 0 key, 1 value, 2 key scale, 3 value scale.
Tensor = tuple[
    Annotated[int, Meta(ge=0, le=3)],
    Annotated[int, Meta(ge=1, le=2**32)],
    Annotated[int, Meta(ge=1, le=2**32)],
]


class Geometry(Struct, frozen=True, kw_only=True):
    """The shape of one side's KV cache; no address in it."""

    layers: Annotated[int, Meta(ge=1, le=4096)]
    block_count: Annotated[int, Meta(ge=1, le=2**31)]
    tensors: Annotated[list[Tensor], Meta(min_length=1, max_length=4)]
    dtype: Name = ""
    tp_size: Annotated[int, Meta(ge=0, le=4096)] = 1
    tp_rank: Annotated[int, Meta(ge=0, le=4095)] = 0


class Host(Struct, frozen=True, kw_only=True):
    """Which running kernel, and which process on it: tells who shares a host."""

    boot_id: Name
    pid: Pid


class Endpoint(Struct, frozen=True, kw_only=True):
    """One side's queue pairs: (number, first packet sequence number) each."""

    gid: Gid
    lid: U16
    mtu: Annotated[int, Meta(ge=256, le=4096)]
    link_layer: Name
    qps: Annotated[list[tuple[U24, U24]], Meta(min_length=1, max_length=MOST_QUEUE_PAIRS)]


class Rail(Struct, frozen=True, kw_only=True):
    """One NIC port of the decode side, with the keys of its regions, chunk by chunk."""

    nic: Name
    port: Annotated[int, Meta(ge=1, le=255)]
    gid: Gid
    lid: U16
    mtu: Annotated[int, Meta(ge=256, le=4096)]
    link_layer: Name
    rkeys: Annotated[list[U32], Meta(min_length=1, max_length=MOST_KEYS)]

    def __repr__(self) -> str:
        return f"Rail(nic={self.nic!r}, port={self.port}, rkeys=...)"


class TcpOffer(Struct, frozen=True, kw_only=True):
    """Nothing to add: the data port and the token of a link are enough."""


class CmaOffer(Struct, frozen=True, kw_only=True):
    """Where to look in the decode process, to be sure that it is the right one."""

    pid: Pid
    boot_id: Name
    pid_namespace: U64
    probe_address: U64
    probe_nonce: Annotated[bytes, Meta(min_length=1, max_length=64)]


# (bytes, handle of 64 bytes or none, descriptor of the decode process or -1): one allocation.
CudaPiece = tuple[
    Annotated[int, Meta(ge=1, le=2**48)],
    Annotated[bytes, Meta(max_length=64)],
    Annotated[int, Meta(ge=-1, le=2**31 - 1)],
]
# (address in the decode process, what lies there without a gap).
CudaSegment = tuple[U64, Annotated[list[CudaPiece], Meta(min_length=1, max_length=MOST_PIECES)]]


class CudaIpcOffer(Struct, frozen=True, kw_only=True):
    """The device memory of the decode process, whole allocations, as another process maps them."""

    pid: Pid
    boot_id: Name
    pid_namespace: U64
    segments: Annotated[list[CudaSegment], Meta(min_length=1, max_length=MOST_PIECES)]

    def __repr__(self) -> str:
        return f"CudaIpcOffer(pid={self.pid}, segments=...)"


class Ring(Struct, frozen=True, kw_only=True):
    """Decode's end of a staged link: where its slots lie, and whether its blocks are on a GPU."""

    address: U64
    slots: Annotated[int, Meta(ge=1, le=MOST_SLOTS)]
    slot_bytes: Annotated[int, Meta(ge=4096, le=MOST_SLOT_BYTES)]
    on_gpu: bool


class RdmaOffer(Struct, frozen=True, kw_only=True):
    """The rails that prefill may choose from, and whether it has to flush after its writes."""

    rails: Annotated[list[Rail], Meta(min_length=1, max_length=MOST_RAILS)]
    flush: bool


class LoopbackOffer(Struct, frozen=True, kw_only=True):
    """Both sides are one process."""


class Offers(Struct, frozen=True, kw_only=True):
    """The transports that decode can really use; one that it cannot is nil."""

    tcp: TcpOffer | None = None
    cma: CmaOffer | None = None
    cuda_ipc: CudaIpcOffer | None = None
    rdma: RdmaOffer | None = None
    loopback: LoopbackOffer | None = None


class Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every message starts with."""

    magic: Literal["RDMAKV"] = MAGIC
    version: Annotated[int, Meta(ge=1, le=2**16 - 1)] = VERSION


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Prefill to decode, first on every socket.

    `peer_tp_*` is the rank that decode is taken for, should it declare none; size 0: prefill's own.
    `ends` are links of this prefill that decode ends before it answers, so that a welcome proves
    that nothing of them can land any more. `automatic`: no `connect` of the user's asked for this.
    """

    epoch: Epoch
    role: Name
    host: Host
    geometry: Geometry
    transports: Annotated[list[Name], Meta(min_length=1, max_length=16)]
    peer_tp_size: Annotated[int, Meta(ge=0, le=4096)] = 0
    peer_tp_rank: Annotated[int, Meta(ge=0, le=4095)] = 0
    ends: Annotated[list[U64], Meta(max_length=MOST_ENDED_LINKS)] = []
    automatic: bool = False


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The geometries agree: here are addresses, keys and offers.

    Prefill must be heard of every `patience_ms`, and may not write with the tags in `revoked`.
    """

    epoch: Epoch
    host: Host
    geometry: Geometry
    bases: Annotated[list[U64], Meta(min_length=1, max_length=MOST_REGIONS)]
    data_port: Port
    offers: Offers
    reasons: Annotated[dict[Name, Sentence], Meta(max_length=16)]
    patience_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 5000
    revoked: Annotated[list[Tag], Meta(max_length=MOST_REVOKED)] = []


# Why a request was refused; anything else is read as "malformed" was: an error with its reason.
LAYOUT_MISMATCH = "layout_mismatch"
AUTHENTICATION = "authentication"
WRONG_VERSION = "version"
WRONG_ROLE = "role"
BUSY = "busy"
STALE_EPOCH = "stale_epoch"
PEER_REVOKED = "revoked"
UNAVAILABLE = "unavailable"
MALFORMED = "malformed"


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The answer instead of a welcome, of an opened, or to a message of another epoch."""

    epoch: Epoch
    code: Name
    reason: Sentence
    ours: Sentence = ""
    theirs: Sentence = ""


class Open(Message, frozen=True, kw_only=True, tag="open"):
    """Prefill asks for one link over one transport; `staged`: it cannot send from its blocks."""

    epoch: Epoch
    peer_epoch: Epoch
    transport: Name
    streams: Annotated[int, Meta(ge=1, le=MOST_STREAMS)] = 1
    rail: Annotated[int, Meta(ge=0, le=MOST_RAILS - 1)] = 0
    rdma: Endpoint | None = None
    staged: bool = False


class Opened(Message, frozen=True, kw_only=True, tag="opened"):
    """The link is waited for on the data port; with a ring it is staged."""

    epoch: Epoch
    link_id: U64
    token: Annotated[bytes, Meta(min_length=16, max_length=16)]
    rdma: Endpoint | None = None
    ring: Ring | None = None

    def __repr__(self) -> str:
        return "Opened(token=...)"


class CloseLink(Message, frozen=True, kw_only=True, tag="close_link"):
    """Prefill could not open the link after all; not answered."""

    epoch: Epoch
    peer_epoch: Epoch
    link_id: U64


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Prefill is alive, and believes that decode is in `peer_epoch`."""

    epoch: Epoch
    peer_epoch: Epoch
    sequence: U64


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to the ping of the same sequence."""

    epoch: Epoch
    sequence: U64


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """The sender goes, in either direction; not answered."""

    epoch: Epoch
    reason: Sentence = ""


class Verify(Message, frozen=True, kw_only=True, tag="verify"):
    """Checksums of blocks that were written: CRC-32 of each, layer and tensor given."""

    epoch: Epoch
    peer_epoch: Epoch
    sequence: U64
    layer: Annotated[int, Meta(ge=0, le=4095)]
    tensor: Annotated[int, Meta(ge=0, le=3)]
    blocks: Annotated[
        list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=MOST_VERIFIED_BLOCKS)
    ]
    checksums: Annotated[list[U32], Meta(max_length=MOST_VERIFIED_BLOCKS)]


class Verified(Message, frozen=True, kw_only=True, tag="verified"):
    """The answer: which of those blocks differ here."""

    epoch: Epoch
    sequence: U64
    bad_blocks: Annotated[
        list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=MOST_VERIFIED_BLOCKS)
    ]


class Revoke(Message, frozen=True, kw_only=True, tag="revoke"):
    """Decode takes no writes with this tag any more; with `lifted`, it does again."""

    epoch: Epoch
    sequence: U64
    tag: Tag
    lifted: bool = False


class Revoked(Message, frozen=True, kw_only=True, tag="revoked"):
    """The answer: nothing of prefill's with that tag is under way, or will be."""

    epoch: Epoch
    peer_epoch: Epoch
    sequence: U64


FromPrefill = Hello | Open | CloseLink | Ping | Bye | Verify | Revoked
FromDecode = Welcome | Refused | Opened | Pong | Bye | Verified | Revoke


class MalformedError(Exception):
    """Bytes that are not a message of ours; says what is wrong with them."""


class OtherVersionError(MalformedError):
    """A message of ours in a version that this side does not speak."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"the peer speaks version {theirs} of the wire, this side {VERSION}")
        self.theirs = theirs


class _Envelope(Struct):
    magic: str
    version: int


_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(_Envelope)
_from_prefill: msgspec.msgpack.Decoder[FromPrefill] = msgspec.msgpack.Decoder(FromPrefill)
_from_decode: msgspec.msgpack.Decoder[FromDecode] = msgspec.msgpack.Decoder(FromDecode)

_T = TypeVar("_T")


def sentence(text: object) -> str:
    """A text cut to what a field of a message may hold, in one line."""
    return re.sub(f"[{_CONTROL}]", " ", str(text))[:MOST_SENTENCE]


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode_from_prefill(data: bytes) -> FromPrefill:
    """What a prefill side sent; raises MalformedError or OtherVersionError."""
    return _decode(data, _from_prefill, MOST_REQUEST_BYTES)


def decode_from_decode(data: bytes) -> FromDecode:
    """What a decode side sent; raises MalformedError or OtherVersionError."""
    return _decode(data, _from_decode, MOST_MESSAGE_BYTES)


def _decode(data: bytes, decoder: msgspec.msgpack.Decoder[_T], most_bytes: int) -> _T:
    if len(data) > most_bytes:
        raise MalformedError(f"a message of {len(data)} bytes; at most {most_bytes}")
    try:
        # On its own and first: a later version may have changed everything else.
        envelope = _envelope.decode(data)
        if envelope.magic != MAGIC:
            raise MalformedError(f"magic is {envelope.magic[:16]!r}; must be {MAGIC!r}")
        if envelope.version != VERSION:
            raise OtherVersionError(envelope.version)
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a message of rdma_kv: {error}") from error
