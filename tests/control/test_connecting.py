"""Two sides that fit find each other, and agree on the best way between them."""

from __future__ import annotations

import asyncio
import logging
import threading

from rdma_kv import Config, Notice
from support.one_process import HOST, cache, eventually


def test_what_prefill_writes_is_there_when_its_notice_is(make):
    target = cache()
    decode = make("decode", keys=target)
    prefill = make("prefill", keys=cache(value=7))

    assert prefill.connect(HOST, str(decode.port)) is True
    prefill.write_cache(HOST, decode.port, [1], [6], 1, tag=9)
    decode.received(9, 5)

    assert (target[1][6] == 7).all()
    assert not target[0].any()


def test_connecting_again_keeps_the_connection(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    [before] = decode._engine.inbound_links()

    prefill.connect(HOST, decode.port)

    assert decode._engine.inbound_links() == [before]


def test_many_threads_that_connect_make_one_connection(make, caplog):
    caplog.set_level(logging.INFO, logger="rdma_kv")
    decode, prefill = make("decode"), make("prefill")
    threads = [
        threading.Thread(target=prefill.connect, args=(HOST, decode.port)) for _ in range(20)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([r for r in caplog.records if "connected to" in r.getMessage()]) == 1


def test_a_notice_says_which_life_of_the_peer_wrote(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    prefill.write_cache(HOST, decode.port, [], [], tag=4)

    eventually(lambda: decode.stats().inbound_links == 1)
    [notice] = decode.poll_received()
    assert notice == Notice(4, notice.peer, prefill.epoch)
    assert notice.peer.startswith(HOST)


def test_notices_come_one_by_one_in_asyncio_until_the_end(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)

    async def run():
        loop = asyncio.get_running_loop()
        tags = []
        await asyncio.gather(
            *(prefill.write_cache_async(HOST, decode.port, [i], [i], tag=i) for i in (1, 2, 3))
        )
        async for notice in decode:
            tags.append(notice.tag)
            if len(tags) == 3:
                loop.call_later(0.05, decode.close)
        return tags

    assert sorted(asyncio.run(asyncio.wait_for(run(), 10))) == [1, 2, 3]


def test_the_choice_and_its_reasons_are_logged_and_kept(make, caplog):
    caplog.set_level(logging.INFO, logger="rdma_kv")
    decode, prefill = make("decode", config=Config()), make("prefill", config=Config())

    prefill.connect(HOST, decode.port)

    [peer] = prefill.peers()
    assert {peer.transport, *peer.reasons} == {"cuda_ipc", "shm", "cma", "rdma", "tcp"}
    [line] = [r.getMessage() for r in caplog.records if "connected to" in r.getMessage()]
    assert peer.transport in line
    assert all(reason in line for reason in peer.reasons.values())


def test_a_decode_that_is_set_to_one_transport_offers_no_other(make):
    decode = make("decode", config=Config(transport="tcp"))
    prefill = make("prefill", config=Config())

    prefill.connect(HOST, decode.port)

    [peer] = prefill.peers()
    assert peer.transport == "tcp"
    assert peer.reasons["cma"] == "decode is set to KVCACHE_TRANSPORT=tcp"
