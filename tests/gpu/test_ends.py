"""Either side may end while the other has its memory mapped, and while it is being written."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path

import pytest

from rdma_kv import PeerLost, TransferError
from support import cuda
from support.cache import Shape
from support.outcome import first_failure
from support.patience import eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of

LARGE = Shape(layers=2, blocks=256, block_bytes=16 << 10)
EVERY = list(range(LARGE.blocks))
TURNED = EVERY[::-1]


def assert_writes_arrive(wire: Wire, prefill, decode) -> None:
    wanted = image_of(decode)
    wanted.take(prefill.cache, EVERY, TURNED, range(LARGE.layers))
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, TURNED, tag=9)
    decode.received(9, 20)
    assert decode.digests() == wanted.digests()


def test_decode_is_killed_while_it_is_written(gpus: Wire, own_process: PeerProcess):
    prefill = gpus.prefill(LARGE)
    victim = gpus.decode(LARGE, process=own_process)
    assert prefill.connect(victim.address)
    failures: list[Exception] = []

    def write_on() -> None:
        failures.append(
            first_failure(
                lambda: prefill.write(victim.address, EVERY, TURNED), TransferError, within_s=30
            )
        )

    writers = [threading.Thread(target=write_on) for _ in range(3)]
    for writer in writers:
        writer.start()
    eventually(lambda: prefill.comm.stats().transfers_done >= 5, 20, "writes flow")
    own_process.kill()
    for writer in writers:
        writer.join(scaled(40))

    assert [type(failure) for failure in failures] == [PeerLost] * 3
    assert_writes_arrive(gpus, prefill, gpus.decode(LARGE))


def test_prefill_is_killed_while_it_writes(gpus: Wire, own_process: PeerProcess):
    decode = gpus.decode(LARGE)
    victim = gpus.prefill_in(own_process, LARGE)
    assert victim.connect(decode.address)
    untouched = decode.digests()
    victim.start("write_again_and_again", decode.address, EVERY, TURNED)
    eventually(lambda: decode.digests() != untouched, 20, "bytes arrive")

    own_process.kill()

    gone: list = []
    eventually(lambda: gone.extend(decode.departed()) or gone, 20, "decode is told")
    assert [is_quiesced for *_, is_quiesced in gone] == [True]
    assert not decode.changed_within(0.3)
    prefill = gpus.prefill(LARGE)
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, EVERY, tag=1)
    decode.received(1, 20)


def mapped_from_others() -> int:
    """What this process has mapped of GPU 1's memory, as the fake driver keeps it."""
    maps = Path("/proc/self/maps").read_text()
    return len(re.findall(r"/memfd:fake_gpu_1 ", maps))


def test_decode_closes_once_prefill_has_unmapped(
    gpus: Wire, own_process: PeerProcess, fake_driver: None, request: pytest.FixtureRequest
):
    """So that what it frees next is mapped nowhere."""
    if gpus.transport != "cuda_ipc" or request.config.getoption("--same-gpu"):
        pytest.skip("nothing is mapped that this could tell")
    before = mapped_from_others()
    prefill = gpus.prefill(LARGE)
    decode = gpus.decode(LARGE, process=own_process)
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, TURNED)
    transfers = [prefill.comm.write_cache_async(*decode.address, EVERY, TURNED) for _ in range(8)]
    assert mapped_from_others() > before

    decode.close()

    assert mapped_from_others() == before
    for transfer in transfers:
        assert transfer.done() or transfer.wait(scaled(10))


def test_prefill_outlives_the_memory_it_wrote_into(gpus: Wire, own_process: PeerProcess):
    prefill = gpus.prefill(LARGE)
    decode = gpus.decode(LARGE, process=own_process)
    assert prefill.connect(decode.address)
    prefill.write(decode.address, EVERY, TURNED)

    decode.discard(scaled(20))  # its memory is freed

    with pytest.raises(TransferError):
        prefill.write(decode.address, EVERY, TURNED, timeout_s=5)
    assert_writes_arrive(gpus, prefill, gpus.decode(LARGE))


def test_memory_is_mapped_once_and_given_back(gpus: Wire, fake_driver: None):
    """Connecting again and again leaves nothing behind."""
    if gpus.transport != "cuda_ipc":
        pytest.skip("nothing is mapped")
    prefill, decode = gpus.pair(LARGE)
    first = mapped_from_others()
    for _ in range(5):
        prefill.disconnect(decode.address)
        assert prefill.connect(decode.address)
        prefill.write(decode.address, EVERY, TURNED)

    assert mapped_from_others() == first


def test_a_gpu_without_room_is_refused_in_words(gpus: Wire, fake_driver: None):
    """The driver's own words, and the next connect() works."""
    prefill, decode = gpus.prefill(Shape()), gpus.decode(Shape())
    fail = cuda.driver().rdma_kv_fake_fail
    fail(b"cuIpcOpenMemHandle_v2", 0, 2)
    try:
        if gpus.transport == "cuda_ipc":
            with pytest.raises(Exception, match="CUDA_ERROR_OUT_OF_MEMORY"):
                prefill.connect(decode.address)
    finally:
        fail(b"cuIpcOpenMemHandle_v2", 0, 0)

    assert prefill.connect(decode.address)
    prefill.write(decode.address, [1], [2], tag=1)
    decode.received(1, 10)


def test_a_closed_decode_keeps_none_of_its_memory_exported(gpus: Wire):
    """A descriptor of virtual memory holds the memory itself."""
    if gpus.transport != "cuda_ipc":
        pytest.skip("only cuda_ipc exports memory")
    gpus.arrange("decode", "device-virtual")
    decode = gpus.decode_here(Shape())
    [exports] = decode.comm._parts.side.cuda_exports
    descriptors = [piece[2] for _, pieces in exports.segments for piece in pieces]
    inodes = [os.fstat(number).st_ino for number in descriptors]
    assert descriptors
    del exports

    decode.comm.close()

    for number, inode in zip(descriptors, inodes, strict=True):
        with contextlib.suppress(OSError):  # closed, or something else has the number now
            assert os.fstat(number).st_ino != inode
