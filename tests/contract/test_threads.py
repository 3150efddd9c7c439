"""One communicator, many threads and many peers."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from support.cache import Shape
from support.wire import Wire, image_of

THREADS = 33


def test_33_threads_each_find_their_blocks_when_their_call_returns(wire: Wire, repeats: int):
    rounds = max(2, repeats // 50)
    each = 4  # blocks of its own per thread, so that what it finds is its own work
    shape = Shape(layers=5, blocks=THREADS * each, block_bytes=512)
    prefill, decode = wire.pair(shape)
    start = threading.Barrier(THREADS)

    def work(thread: int) -> list[str]:
        dice = random.Random(thread)
        mine = range(thread * each, (thread + 1) * each)
        wrong = []
        start.wait()
        for _ in range(rounds):
            layer = dice.randrange(shape.layers)
            src = dice.sample(range(shape.blocks), each)
            prefill.comm.write_cache(*decode.address, src, list(mine), layer)
            for name in ("key", "value"):
                wanted = prefill.cache.blocks(name, layer)[src].tobytes().hex()
                if decode.read(name, layer, mine.start, mine.stop) != wanted:
                    wrong.append(f"{name} of layer {layer}, thread {thread}")
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert [wrong for found in pool.map(work, range(THREADS)) for wrong in found] == []


def test_33_threads_connect_at_once(wire: Wire):
    decode = wire.decode(Shape())
    prefill = wire.prefill(Shape())

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(prefill.connect, [decode.address] * THREADS))

    assert answers == [True] * THREADS
    assert len(prefill.comm.stats().peers) == 1


def test_two_prefills_write_into_one_decode(wire: Wire):
    decode = wire.decode(Shape())
    wanted = image_of(decode)
    prefills = [wire.prefill(Shape()) for _ in range(2)]
    for prefill in prefills:
        assert prefill.connect(decode.address)

    def work(number: int) -> None:
        prefill = prefills[number]
        for i in range(8):
            prefill.write(decode.address, [i], [number * 16 + i], tag=number + 1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    for number, prefill in enumerate(prefills):
        wanted.take(prefill.cache, range(8), range(number * 16, number * 16 + 8), range(3))

    decode.received(1, 10, 8)
    decode.received(2, 10, 8)
    assert decode.digests() == wanted.digests()


def test_one_prefill_writes_into_two_decodes(wire: Wire):
    prefill = wire.prefill(Shape())
    decodes = [wire.decode(Shape()) for _ in range(2)]
    wanted = [image_of(decode) for decode in decodes]
    for decode in decodes:
        assert prefill.connect(decode.address)

    transfers = [
        prefill.comm.write_cache_async(*decodes[i % 2].address, [i], [31 - i], tag=i + 1)
        for i in range(16)
    ]
    for i, transfer in enumerate(transfers):
        transfer.wait()
        wanted[i % 2].take(prefill.cache, [i], [31 - i], range(3))

    assert [decode.digests() for decode in decodes] == [image.digests() for image in wanted]
