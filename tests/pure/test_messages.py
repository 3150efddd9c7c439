"""The control messages: round trips, exact bytes, bounds, and whatever else a network may send."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdma_kv import _messages as wire

WIRE_MD = Path(__file__).parents[2] / "docs" / "wire.md"

GEOMETRY = wire.Geometry(
    layers=2,
    block_count=1024,
    tensors=[(0, 4096, 4096), (1, 4096, 4096)],
    dtype="float16",
    tp_size=1,
    tp_rank=0,
)
HELLO = wire.Hello(
    epoch=0x1122334455667788,
    role="prefill",
    host=wire.Host(boot_id="b007", pid=4242),
    geometry=GEOMETRY,
    transports=["tcp"],
)
ENDPOINT = wire.Endpoint(
    gid=bytes(range(16)), lid=0, mtu=4096, link_layer="Ethernet", qps=[(17, 2**24 - 1), (18, 0)]
)
RAIL = wire.Rail(
    nic="mlx5_0",
    port=1,
    gid=bytes(16),
    lid=65535,
    mtu=4096,
    link_layer="InfiniBand",
    rkeys=[1, 2**32 - 1],
)
WELCOME = wire.Welcome(
    epoch=2**64 - 1,
    host=wire.Host(boot_id="b007", pid=1),
    geometry=GEOMETRY,
    bases=[2**47, 2**64 - 4096],
    data_port=65535,
    offers=wire.Offers(
        tcp=wire.TcpOffer(),
        cma=wire.CmaOffer(
            pid=1, boot_id="b007", pid_namespace=1, probe_address=2**47, probe_nonce=bytes(16)
        ),
        rdma=wire.RdmaOffer(rails=[RAIL], flush=True),
    ),
    reasons={"shm": "not built"},
)

FROM_PREFILL = [
    HELLO,
    wire.Open(epoch=1, peer_epoch=2, transport="rdma", streams=64, rail=15, rdma=ENDPOINT),
    wire.Open(epoch=1, peer_epoch=2, transport="tcp"),
    wire.CloseLink(epoch=1, peer_epoch=2, link_id=2**64 - 1),
    wire.Ping(epoch=1, peer_epoch=2, sequence=0),
    wire.Verify(
        epoch=1, peer_epoch=2, sequence=1, layer=0, tensor=3, blocks=[2**31 - 1], checksums=[0]
    ),
    wire.Bye(epoch=1, reason="closed"),
    wire.Revoked(epoch=1, peer_epoch=2, sequence=3),
    msgspec.structs.replace(HELLO, ends=[2**64 - 1] * 16, automatic=True),
    wire.Open(epoch=1, peer_epoch=2, transport="tcp", staged=True),
]
FROM_DECODE = [
    WELCOME,
    wire.Refused(epoch=1, code=wire.BUSY, reason="full", ours="1", theirs="2"),
    wire.Opened(epoch=1, link_id=0, token=bytes(16), rdma=ENDPOINT),
    wire.Opened(epoch=1, link_id=0, token=bytes(16)),
    wire.Pong(epoch=1, sequence=2**64 - 1),
    wire.Verified(epoch=1, sequence=1, bad_blocks=[7]),
    wire.Bye(epoch=1),
    wire.Revoke(epoch=1, sequence=3, tag=2**32 - 1, lifted=True),
    msgspec.structs.replace(WELCOME, patience_ms=500, revoked=[1, 2**32 - 1]),
    wire.Opened(
        epoch=1,
        link_id=0,
        token=bytes(16),
        ring=wire.Ring(address=2**47, slots=64, slot_bytes=256 << 20, on_gpu=True),
    ),
]


def name_of(message: object) -> str:
    return type(message).__name__


def example_of_the_page() -> bytes:
    """The bytes of the worked example: the hex at the start of each of its lines."""
    block = re.search(r"<!-- test_messages.py .*?-->\n```\n(.*?)```", WIRE_MD.read_text(), re.S)
    assert block is not None
    hexes = [re.match(r"\s*((?:[0-9a-f]{2}\s+)+)", line) for line in block[1].splitlines()]
    return b"".join(bytes.fromhex(line[1]) for line in hexes if line)


def as_map(message: wire.Message) -> dict:
    return msgspec.msgpack.decode(wire.encode(message))


@pytest.mark.parametrize("message", FROM_PREFILL, ids=name_of)
def test_what_prefill_sends_arrives_equal(message):
    assert wire.decode_from_prefill(wire.encode(message)) == message


@pytest.mark.parametrize("message", FROM_DECODE, ids=name_of)
def test_what_decode_sends_arrives_equal(message):
    assert wire.decode_from_decode(wire.encode(message)) == message


def test_a_hello_has_the_bytes_of_the_page():
    assert wire.encode(HELLO) == example_of_the_page()


def test_the_bytes_of_the_page_are_read_as_that_hello():
    assert wire.decode_from_prefill(example_of_the_page()) == HELLO


def test_the_page_names_every_field_of_every_message():
    page = WIRE_MD.read_text()
    for message in {type(m) for m in FROM_PREFILL + FROM_DECODE}:
        tag = message.__struct_config__.tag
        grammar = re.search(rf"^    {tag} .*?(?=^    \S|^$)", page, re.S | re.M)
        assert grammar is not None, tag
        for field in message.__struct_fields__:
            if field not in ("magic", "version"):
                assert f"{field}:" in grammar[0], f"{tag}.{field}"


def test_keys_that_this_version_does_not_know_are_ignored():
    ping = as_map(FROM_PREFILL[4])
    ping["colour"] = {"deep": [1, 2, {"er": None}]}

    assert wire.decode_from_prefill(msgspec.msgpack.encode(ping)) == FROM_PREFILL[4]


def test_another_order_of_keys_is_read_the_same():
    ping = dict(reversed(as_map(FROM_PREFILL[4]).items()))

    assert wire.decode_from_prefill(msgspec.msgpack.encode(ping)) == FROM_PREFILL[4]


@pytest.mark.parametrize("decode", [wire.decode_from_prefill, wire.decode_from_decode])
def test_another_version_is_refused_with_both_versions_named(decode):
    future = {"magic": "RDMAKV", "version": 2, "type": "salutation", "epoch": "no longer a number"}

    with pytest.raises(wire.OtherVersionError, match=r"version 2 .* this side 1") as caught:
        decode(msgspec.msgpack.encode(future))

    assert caught.value.theirs == 2


def test_another_magic_is_refused_before_the_version_is_looked_at():
    other = {"magic": "HTTP", "version": 2, "type": "hello"}

    with pytest.raises(wire.MalformedError, match="magic is 'HTTP'; must be 'RDMAKV'"):
        wire.decode_from_prefill(msgspec.msgpack.encode(other))


def test_each_side_takes_only_what_the_other_may_send():
    with pytest.raises(wire.MalformedError):
        wire.decode_from_prefill(wire.encode(WELCOME))
    with pytest.raises(wire.MalformedError):
        wire.decode_from_decode(wire.encode(HELLO))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epoch",), 0),
        (("epoch",), -1),
        (("epoch",), 1.5),
        (("epoch",), "1"),
        (("role",), "x" * 65),
        (("role",), None),
        (("transports",), []),
        (("transports",), ["x"] * 17),
        (("host", "pid"), 0),
        (("host", "boot_id"), "x" * 65),
        (("geometry", "layers"), 0),
        (("geometry", "layers"), 4097),
        (("geometry", "block_count"), 2**31 + 1),
        (("geometry", "tensors"), []),
        (("geometry", "tensors"), [[0, 1, 1]] * 5),
        (("geometry", "tensors"), [[4, 1, 1]]),
        (("geometry", "tensors"), [[0, 0, 1]]),
        (("geometry", "tensors"), [[0, 2**32 + 1, 2**32 + 1]]),
        (("geometry", "tensors"), [[0, 1]]),
        (("geometry", "dtype"), "x" * 65),
        (("geometry", "tp_size"), 4097),
        (("geometry", "tp_rank"), -1),
        (("ends",), [1] * 17),
        (("automatic",), 1),
    ],
    ids=repr,
)
def test_a_hello_out_of_bounds_is_refused(path, value):
    hello = as_map(HELLO)
    target = hello
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value

    with pytest.raises(wire.MalformedError, match=path[-1]):
        wire.decode_from_prefill(msgspec.msgpack.encode(hello))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data_port",), 0),
        (("data_port",), 65536),
        (("bases",), []),
        (("bases",), [1] * (wire.MOST_REGIONS + 1)),
        (("bases",), [-1]),
        (("reasons",), {str(i): "" for i in range(17)}),
        (("reasons",), {"tcp": "x" * 1001}),
        (("offers", "rdma", "rails"), []),
        (("offers", "cma", "probe_nonce"), b""),
        (("offers", "cma", "probe_nonce"), b"x" * 65),
        (("offers", "tcp"), 1),
        (("patience_ms",), 99),
        (("revoked",), [0]),
        (("revoked",), [2**32]),
        (("revoked",), [1] * (wire.MOST_REVOKED + 1)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_welcome_out_of_bounds_is_refused(path, value):
    welcome = as_map(WELCOME)
    target = welcome
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value

    with pytest.raises(wire.MalformedError, match=path[-1]):
        wire.decode_from_decode(msgspec.msgpack.encode(welcome))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gid", bytes(15)),
        ("gid", bytes(17)),
        ("lid", 65536),
        ("mtu", 255),
        ("mtu", 4097),
        ("qps", []),
        ("qps", [[1, 1]] * 65),
        ("qps", [[2**24, 1]]),
        ("qps", [[1, 2**24]]),
        ("qps", [[1, 1, 1]]),
    ],
)
def test_an_endpoint_out_of_bounds_is_refused(field, value):
    request = as_map(FROM_PREFILL[1])
    request["rdma"][field] = value

    with pytest.raises(wire.MalformedError, match=field):
        wire.decode_from_prefill(msgspec.msgpack.encode(request))


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_token_of_another_length_is_refused(length):
    opened = as_map(FROM_DECODE[3]) | {"token": bytes(length)}

    with pytest.raises(wire.MalformedError, match="token"):
        wire.decode_from_decode(msgspec.msgpack.encode(opened))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", -1),
        ("slots", 0),
        ("slots", 65),
        ("slot_bytes", 4095),
        ("slot_bytes", (256 << 20) + 1),
        ("on_gpu", 1),
    ],
)
def test_a_ring_out_of_bounds_is_refused(field, value):
    opened = as_map(next(each for each in FROM_DECODE if getattr(each, "ring", None)))
    opened["ring"][field] = value

    with pytest.raises(wire.MalformedError, match=field):
        wire.decode_from_decode(msgspec.msgpack.encode(opened))


def test_the_largest_model_fits_into_a_welcome():
    rkeys = [2**32 - 1] * wire.MOST_KEYS
    large = msgspec.structs.replace(
        WELCOME,
        revoked=[2**32 - 1] * wire.MOST_REVOKED,
        bases=[2**64 - 1] * wire.MOST_REGIONS,
        offers=wire.Offers(
            rdma=wire.RdmaOffer(
                rails=[msgspec.structs.replace(RAIL, rkeys=rkeys)],
                flush=False,
            )
        ),
    )

    assert wire.decode_from_decode(wire.encode(large)) == large


@pytest.mark.parametrize(
    ("decode", "most"),
    [
        (wire.decode_from_prefill, wire.MOST_REQUEST_BYTES),
        (wire.decode_from_decode, wire.MOST_MESSAGE_BYTES),
    ],
)
def test_a_message_that_is_too_long_is_refused_unread(decode, most):
    with pytest.raises(wire.MalformedError, match=f"{most + 1} bytes; at most {most}"):
        decode(bytes(most + 1))


def test_the_largest_verify_fits_into_a_request():
    most = wire.MOST_VERIFIED_BLOCKS
    verify = msgspec.structs.replace(
        FROM_PREFILL[5], blocks=[2**31 - 1] * most, checksums=[2**32 - 1] * most
    )

    assert wire.decode_from_prefill(wire.encode(verify)) == verify


@pytest.mark.parametrize("message", FROM_PREFILL, ids=name_of)
def test_every_truncated_message_is_refused(message):
    whole = wire.encode(message)

    for length in range(len(whole)):
        with pytest.raises(wire.MalformedError):
            wire.decode_from_prefill(whole[:length])


def test_bytes_behind_a_message_are_refused():
    with pytest.raises(wire.MalformedError):
        wire.decode_from_prefill(wire.encode(HELLO) + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x91" * 100_000,
        b"\x81\xa1x" * 50_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x81\xa4type\xa5hello",
        b"\x82\xa5magic\xa2\xff\xfe\xa7version\x01",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_garbage_is_refused(data):
    with pytest.raises(wire.MalformedError):
        wire.decode_from_prefill(data)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_worse(data):
    for decode in (wire.decode_from_prefill, wire.decode_from_decode):
        with pytest.raises(wire.MalformedError):
            decode(data)


@given(st.sampled_from(FROM_PREFILL), st.data())
def test_a_flipped_byte_is_read_as_a_message_or_refused(message, data):
    damaged = bytearray(wire.encode(message))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        found = wire.decode_from_prefill(bytes(damaged))
    except wire.MalformedError:
        return
    assert isinstance(found, wire.Message)


def test_a_reason_is_cut_to_what_a_message_may_hold():
    refused = wire.Refused(epoch=1, code=wire.BUSY, reason=wire.sentence("x" * 5000))

    assert wire.decode_from_decode(wire.encode(refused)).reason == "x" * wire.MOST_SENTENCE
