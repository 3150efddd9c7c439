"""A communicator that was closed, or forgotten, leaves nothing behind."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from pathlib import Path

import pytest
import zmq

from rdma_kv import RDMACommunicator, _core
from support.one_process import BLOCK_BYTES, BLOCKS, HOST, LOOPBACK, cache, eventually


def test_every_call_after_close_says_so(make):
    decode, prefill = make("decode"), make("prefill")
    decode.close()
    prefill.close()
    calls = [
        lambda: prefill.connect(HOST, 1),
        lambda: prefill.is_connected(HOST, 1),
        lambda: prefill.disconnect(HOST, 1),
        lambda: prefill.write_cache(HOST, 1, [0], [0]),
        lambda: prefill.write_cache_async(HOST, 1, [0], [0]),
        lambda: prefill.stats(),
        lambda: prefill.peers(),
        lambda: decode.received(1, 1),
        lambda: decode.poll_received(),
        lambda: decode.fileno(),
        lambda: decode.stats(),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="communicator is closed"):
            call()


def test_closing_twice_is_no_error(make):
    for role in ("prefill", "decode"):
        communicator = make(role)
        communicator.close()
        communicator.close()


def test_who_closes_second_returns_when_all_has_ended(make):
    decode, prefill = make("decode"), make("prefill")
    prefill.connect(HOST, decode.port)
    _core.loopback_faults().delay(0.5)
    transfer = prefill.write_cache_async(HOST, decode.port, [1], [2])
    first = threading.Thread(target=prefill.close)
    try:
        first.start()
        eventually(lambda: "closed" in repr(prefill))

        prefill.close()

        assert transfer.done()
    finally:
        _core.loopback_faults().clear()
        first.join()


def test_who_waits_for_a_notice_is_woken_by_close(make):
    decode = make("decode")
    threading.Timer(0.2, decode.close).start()

    with pytest.raises(ValueError, match="communicator is closed"):
        decode.received(1, 30)


def listening_ports():
    """Of this process: other processes may take a port as soon as it is free."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            # What is no socket must not be tried: fromfd() would leave its copy open.
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            with socket.fromfd(int(descriptor.name), socket.AF_INET, socket.SOCK_STREAM) as line:
                if line.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(line.getsockname()[1])
        except OSError:  # no socket, or closed meanwhile
            continue
    return found


def test_a_forgotten_communicator_leaves_no_thread_and_no_port():
    before = set(threading.enumerate())
    decode = RDMACommunicator("decode", -1, 0, cache(), [], BLOCKS, BLOCK_BYTES, config=LOOPBACK)
    port, forgotten = decode.port, weakref.ref(decode)
    # Not a count: threads of earlier tests may end meanwhile.
    threads = set(threading.enumerate()) - before
    assert threads
    assert port in listening_ports()

    del decode
    gc.collect()

    assert forgotten() is None
    eventually(lambda: not any(thread.is_alive() for thread in threads))
    eventually(lambda: port not in listening_ports())


def test_closing_does_not_wait_for_ever_for_a_socket_of_another_thread(make):
    prefill = make("prefill")
    held = prefill._parts._context.socket(zmq.DEALER)
    closing = threading.Thread(target=prefill.close, kwargs={"timeout_s": 0.1}, daemon=True)

    closing.start()
    closing.join(10)
    has_ended = not closing.is_alive()
    held.close(linger=0)

    assert has_ended


def test_the_garbage_collector_may_end_a_communicator_on_its_own_control_thread():
    holder = [RDMACommunicator("decode", -1, 0, cache(), [], BLOCKS, BLOCK_BYTES, config=LOOPBACK)]
    loop, port = holder[0]._parts._loop, holder[0].port
    holder[0].itself = holder[0]

    def collect():
        holder.clear()
        gc.collect()

    loop.run(collect, 10)

    eventually(lambda: not loop._thread.is_alive())
    eventually(lambda: port not in listening_ports())
