"""Mutates msgpack as the tree that it is: a flipped byte alone rarely gets past the first check."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import atheris
import msgspec

Path = list[Any]  # keys and indices from the root

_BITS = (7, 8, 12, 15, 16, 24, 31, 32, 48, 63, 64)
INTEGERS = (
    [0, 1, 2, 3, 15, 64, 65, 4095, 4096, 4097, 8192, 16384]
    + [2**bits - 1 for bits in _BITS]
    + [2**bits for bits in _BITS[:-1]]
    + [-(2**bits) for bits in (0, 5, 7, 31, 63)]
)
OTHERS: list[Any] = [None, True, False, 0.0, 1.0, 1.5, -1.0, 2.0**64, 1e300, float("nan"), "", b""]
OTHERS += ["x" * size for size in (1, 64, 65, 1000, 1001)]
OTHERS += [bytes(size) for size in (1, 15, 16, 17, 64, 65)]
OTHERS += [[], {}, [[]], [0], [0, 0], [0, 1, 1], {"": None}, ["tcp"], "\0", "\ud7ff\U0001f600"]


def mutator(strangers: list[Any]) -> Callable[[bytes, int, int], bytes]:
    """For ``atheris.Setup(custom_mutator=...)``; parts of `strangers` are spliced in."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.2:
            return bytes(atheris.Mutate(data, max_size))
        try:
            tree = msgspec.msgpack.decode(data, strict=False)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, TypeError):
            tree = _copy(dice.choice(strangers))
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            tree = _change(tree, dice, strangers)
        try:
            changed = msgspec.msgpack.encode(tree)
        except (OverflowError, RecursionError, TypeError):
            return data[:max_size]
        return changed if len(changed) <= max_size else bytes(atheris.Mutate(data, max_size))

    return mutate


def _paths(tree: Any, path: Path) -> list[Path]:
    found = [path]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += _paths(value, [*path, key])
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:64]):
            found += _paths(value, [*path, index])
    return found


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _change(tree: Any, dice: random.Random, strangers: list[Any]) -> Any:
    path = dice.choice(_paths(tree, []))
    new = _changed(_at(tree, path), dice, strangers)
    if not path:
        return new
    parent = _at(tree, path[:-1])
    if isinstance(parent, dict) and dice.random() < 0.1:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return tree


def _copy(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def _changed(value: Any, dice: random.Random, strangers: list[Any]) -> Any:
    if dice.random() < 0.15:
        stranger = dice.choice(strangers)
        return _copy(_at(stranger, dice.choice(_paths(stranger, []))))
    if dice.random() < 0.15:
        return _copy(dice.choice(OTHERS))
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return dice.choice([True, False, None, 0, 1])
    if isinstance(value, int):
        near = value + dice.choice((-1, 1, -2, 2))
        if -(2**63) <= near < 2**64 and dice.random() < 0.3:
            return near
        return dice.choice(INTEGERS)
    if isinstance(value, bytes):
        return bytes(atheris.Mutate(value, len(value) + 32))
    if isinstance(value, str):
        return bytes(atheris.Mutate(value.encode(), len(value) + 32)).decode(errors="replace")
    if isinstance(value, list):
        return _changed_list(value, dice, strangers)
    if isinstance(value, dict):
        stranger = dice.choice(strangers)
        key = dice.choice([*value, "extra"])
        return value | {key: _copy(_at(stranger, dice.choice(_paths(stranger, []))))}
    return value


def _changed_list(items: list[Any], dice: random.Random, strangers: list[Any]) -> list[Any]:
    what = dice.randrange(5)
    if not items or what == 0:
        return [*items, _copy(_at(one := dice.choice(strangers), dice.choice(_paths(one, []))))]
    where = dice.randrange(len(items))
    if what == 1:
        return items[:where] + items[where + 1 :]
    if what == 2:
        return [*items[:where], _copy(items[where]), *items[where:]]
    if what == 3:
        other = dice.randrange(len(items))
        items[where], items[other] = items[other], items[where]
        return items
    return items * dice.choice((2, 3, 17))
