"""Writes the first inputs of every target, made from valid conversations and from known attacks.

Usage: PYTHONPATH=. python tests/fuzz/make_seeds.py tests/fuzz/seeds

What it writes is committed, and replayed by every `scripts/fuzz`. To be run again when the form of
an input has changed.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

import msgspec
from examples import FROM_DECODE, FROM_PREFILL
from sessions import conversations

from rdma_kv import _messages
from tests.stream import wire

Seeds = dict[str, bytes]

# (block's bytes in one layer, layers, blocks) of the shapes in cache.cc.
SHAPES = [(32, 2, 8), (27, 2, 5), (16, 2, 6), (16, 2, 6), (40, 3, 7), (2, 3, 180), (17000, 1, 2)]

# What a byte of a receiver's input asks for, see frames.h and receiver.cc; the stream is the upper
# half of the byte.
RAW, HOLD, PACE, ROOM, CLOSE, RESET = 0, 9, 10, 11, 12, 13


def message_seeds() -> Seeds:
    seeds = {}
    for side, messages in (("prefill", FROM_PREFILL), ("decode", FROM_DECODE)):
        for message in messages:
            seeds[f"{side}-{type(message).__name__.lower()}"] = _messages.encode(message)
    return seeds


def session_seeds() -> Seeds:
    whole = {
        f"conversation-{number}": msgspec.msgpack.encode(talk)
        for number, talk in enumerate(conversations())
    }
    steps = [*conversations()[0][2:], [0, 1], [0, 2], [0, b"?"]]
    alone = {
        f"alone-{number}": msgspec.msgpack.encode([0, conversations()[0][1], step])
        for number, step in enumerate(steps)
    }
    return whole | alone


def raw(stream: int, data: bytes, piece: int = 256) -> bytes:
    """Bytes that one stream sends, in pieces."""
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    return b"".join(bytes([stream << 4 | RAW, len(part) - 1]) + part for part in pieces)


def payload(transfer: int, size: int, frame: int = 1 << 20) -> bytes:
    data = random.Random(transfer).randbytes(size)
    frames = [data[at : at + frame] for at in range(0, size, frame)]
    return b"".join(wire.frame(wire.DATA, transfer, part) for part in frames)


def receiver_seeds() -> Seeds:
    seeds = {}
    for number, (block, layers, blocks) in enumerate(SHAPES):
        if block > 1000:
            continue  # its payload is made by the target: see `rest` below
        one, four = bytes([number]), bytes([number | 3 << 4])
        runs = [(blocks - 2, 2), (0, 1)]
        whole = wire.write(1, runs, tag=9, layers=(0, layers)) + payload(1, 3 * layers * block, 50)
        parts = [
            wire.write(2, [(part, 1)], tag=8, layers=(layers - 1, 1), part=part, parts=4)
            + payload(2, block)
            for part in range(4)
        ]
        notice = wire.frame(wire.NOTICE, 3, struct.pack("<I", 7))
        abort = wire.write(4, runs) + payload(4, block) + wire.frame(wire.ABORT, 4)
        seeds |= {
            f"whole-{number}": one + raw(0, whole),
            f"pieces-{number}": one + raw(0, whole, 7) + raw(0, notice),
            f"parts-{number}": four + b"".join(raw(i, part) for i, part in enumerate(parts)),
            f"held-{number}": four
            + bytes([HOLD])
            + b"".join(raw(3 - i, part, 13) for i, part in enumerate(parts))
            + bytes([HOLD]),
            f"abort-{number}": four + raw(0, abort) + raw(1, parts[1]) + raw(1, notice),
            f"slow-{number}": one
            + bytes([PACE, 3, 0, 2, ROOM, 10, 0])
            + raw(0, whole + notice + wire.frame(wire.END)),
            f"cut-{number}": one + raw(0, whole[: len(whole) // 2]) + bytes([CLOSE]),
            f"reset-{number}": one + raw(0, whole[: len(whole) // 2]) + bytes([RESET, 0]),
            f"full-{number}": one + bytes([15, 4]) + raw(0, whole + notice * 9) + bytes([15, 5]),
            f"one-more-{number}": one
            + raw(0, wire.write(1, runs, layers=(0, layers)))
            + raw(0, payload(1, 3 * layers * block + 1)),
            f"empty-{number}": one + raw(0, wire.write(5, [], tag=6)) + raw(0, notice),
        }
        every_block = bytes([1, 1, 9, layers * 4, 8, 255])  # WRITE 1, tag 9, all layers, 1 part
        seeds[f"rest-{number}"] = one + every_block + bytes([3, 77, 8])
    write_large = bytes([1, 1, 9, 4, 8, 255])
    seeds["large"] = bytes([6]) + write_large + bytes([2, 0x10, 0x27, 5, 10, 200, 0, 3, 3, 5])
    return seeds


def sender_seeds() -> Seeds:
    """Programs of sender.cc."""
    run_all, poll, quiesce = bytes([15]), bytes([2, 3]), bytes([12])
    seeds = {}
    names = {0: "small", 6: "scattered", 7: "large"}
    for large in names:
        for streams in (0, 3):
            opened = bytes([large | streams << 4, 0])
            few, many = bytes([0, 2]), bytes([0, 32])  # of ten runs
            name = f"{names[large]}-{streams + 1}"
            close_all = b"".join(bytes([10 | i << 4]) for i in range(streams + 1))
            seeds |= {
                f"in-order-{name}": opened + few + run_all + poll + quiesce + close_all + quiesce,
                f"several-{name}": opened + few + many + few + run_all * 3 + poll + quiesce,
                f"abandoned-{name}": opened
                + bytes([7, 1, 0]) + many + bytes([3, 0]) + poll + run_all * 2 + quiesce,
                f"broken-{name}": opened + few + bytes([11, 0]) + poll + bytes([14, 0]) + quiesce,
                f"silent-{name}": opened + few + bytes([11, 1]) + poll + quiesce,
                f"given-up-{name}": opened + many + bytes([13]) + poll + quiesce * 2,
            }  # fmt: skip
    seeds["early-applied"] = bytes([0, 0, 7, 1, 0, 0, 10, 3, 0, 5, 1, 2, 0])
    seeds["early-aborted"] = bytes([0, 0, 7, 1, 0, 0, 26, 3, 0, 5, 17, 2, 0])
    seeds["timed-out"] = bytes([0, 0, 11, 1, 12])
    seeds["other-life"] = bytes([0, 0xFE])
    refusal = wire.frame(wire.REFUSED, 0, struct.pack("<H", 5) + b"go\naw")
    seeds["refused"] = bytes([0, 0xFF, len(refusal)]) + refusal + bytes([1, 255, 255])
    return seeds


def data_port_seeds() -> Seeds:
    """Programs of data_port.cc: 15 connects with a good HELLO, 2 says one with a lie."""
    good, notice = bytes([15]), bytes([3, 4, 1, 9])
    seeds = {f"lie-{bit}": bytes([0, 0, 2, 0, 1 << bit, 30]) for bit in range(6)}
    seeds |= {
        "write": bytes([0]) + good + bytes([3, 1, 1, 9, 4, 8, 1, 2, 0, 1]),
        "notice": bytes([1]) + good + notice + bytes([8]),
        "two-links": bytes([2, 4, 0x14]) + good + bytes([0x1F]) + notice + bytes([6, 14]),
        "twice": bytes([0]) + good + good + bytes([2, 0, 0]),
        "flood": bytes([0, 11, 70, 0, 2, 0, 0]),
        "patience": bytes([0, 0, 1, 3, 1, 0, 0, 0, 5, 136, 19, 0, 5, 136, 19]),
        "late": bytes([0, 5, 255, 255]) + good,
        "ended": bytes([0]) + good + bytes([6]) + notice + good,
        "epoch": bytes([0]) + good + bytes([7, 0x17]) + notice,
        "slow": bytes([0, 13, 3]) + good + notice + bytes([10, 0, 0]) + notice,
        "streams": bytes([0, 0x34, 0x1F, 0x1F, 0x1F, 0x1F]) + notice,
        "side": bytes([0, 0x44, 0x1F]) + notice + bytes([3, 8]),
        "at-the-sender": bytes([0, 0xC4, 0x1F]) + notice + bytes([0x16, 14, 8]),
        "full": bytes([0, 0x1E]) + good + notice * 3 + bytes([0x2E]) + notice,
        "unconfirmed": bytes([0, 0xC4, 0x1F]) + notice + bytes([3, 1]),
        "timed-out": bytes([0, 0xC4, 0x1F, 0x19]) + notice + bytes([0x16, 14]),
    }
    return seeds


def main() -> None:
    makers = {
        "messages": message_seeds,
        "sessions": session_seeds,
        "receiver": receiver_seeds,
        "sender": sender_seeds,
        "data_port": data_port_seeds,
    }
    for target, make in makers.items():
        folder = Path(sys.argv[1], target)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in make().items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
