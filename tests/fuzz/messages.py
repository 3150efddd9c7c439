#!/usr/bin/env python3
"""Fuzzes the parser of control messages; run by `scripts/fuzz messages`.

Whatever comes, only MalformedError leaves the parser; what it accepts is within the bounds of
docs/wire.md, and survives a round trip unchanged.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import atheris
import msgspec

with atheris.instrument_imports(include=["rdma_kv._messages"]):
    from examples import FROM_DECODE, FROM_PREFILL
    from trees import mutator

    from rdma_kv import _messages as wire

FIELDS = sorted(
    {name for message in FROM_PREFILL + FROM_DECODE for name in message.__struct_fields__}
    | {"boot_id", "pid", "layers", "block_count", "tensors", "dtype", "tp_size", "tp_rank", "gid"}
    | {"lid", "mtu", "link_layer", "qps", "rails", "rkeys", "flush", "nic", "port", "probe_nonce"}
)
COMPLAINTS = ["missing", "truncated", "malformed", "Invalid value", "magic", "version", "[...]"]
COMPLAINTS += ["Expected `int`", "Expected `str`", "Expected `array`", "Expected `object`"]
COMPLAINTS += [">=", "<=", "length", "trailing", "UTF-8", "null", "`bytes`", "`bool`", "float"]


def _make_note() -> Callable[[str], int]:
    """A function with a branch for each kind of refusal: the parser itself is compiled code that
    the fuzzer cannot watch, and so it is told which complaints are new."""
    lines = [f"  if {word!r} in text: seen += 1" for word in FIELDS + COMPLAINTS]
    scope: dict[str, Any] = {}
    exec("\n".join(["def note(text):", "  seen = 0", *lines, "  return seen"]), scope)
    return atheris.instrument_func(scope["note"])  # type: ignore[no-any-return]


note = _make_note()


@atheris.instrument_func  # type: ignore[untyped-decorator]
def check_bounds(value: Any) -> None:
    """Bounds that hold for every field of every message."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        assert 0 <= value < 2**64, value
    elif isinstance(value, str):
        assert len(value) <= wire.MOST_SENTENCE
        assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in value)
        value.encode()
    elif isinstance(value, bytes):
        assert 1 <= len(value) <= 64
    elif isinstance(value, list | tuple):
        assert len(value) <= wire.MOST_KEYS
        for item in value[:100]:
            check_bounds(item)
    elif isinstance(value, dict):
        assert len(value) <= 16
        for pair in value.items():
            check_bounds(pair)
    else:
        assert isinstance(value, msgspec.Struct), type(value)
        for name in value.__struct_fields__:
            check_bounds(getattr(value, name))


def check_complaint(error: wire.MalformedError) -> None:
    """It can be told to the peer."""
    if isinstance(error, wire.OtherVersionError):
        assert error.theirs != wire.VERSION
    refused = wire.Refused(epoch=1, code=wire.MALFORMED, reason=wire.sentence(error))
    assert wire.decode_from_decode(wire.encode(refused)) == refused
    note(str(error))


def check(decode: Callable[[bytes], wire.Message], data: bytes) -> None:
    try:
        message = decode(data)
    except wire.MalformedError as error:
        check_complaint(error)
        return
    check_bounds(message)
    again = wire.encode(message)
    assert decode(again) == message
    assert wire.encode(decode(again)) == again
    # An ignored key may cost bytes, an accepted one never gains any but its defaults.
    assert len(again) <= len(data) + 512


def test_one_input(data: bytes) -> None:
    check(wire.decode_from_prefill, data)
    check(wire.decode_from_decode, data)


if __name__ == "__main__":
    trees = [msgspec.to_builtins(message, builtin_types=(bytes,)) for message in FROM_PREFILL]
    trees += [msgspec.to_builtins(message, builtin_types=(bytes,)) for message in FROM_DECODE]
    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutator(trees))
    atheris.Fuzz()
