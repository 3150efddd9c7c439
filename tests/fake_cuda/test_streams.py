"""The fake driver's streams work on their own, in order, and wait for events as CUDA's do."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from fake_cuda.test_memory import status_of
from support import cuda
from support.patience import eventually, scaled

pytestmark = pytest.mark.usefixtures("fake")
OLD, NEW = 1, 2


@pytest.fixture
def place(fake: None) -> cuda.Place:
    """Full of OLD."""
    made = cuda.Memory(0, 1000).place()
    made.write(np.full(1000, OLD, np.uint8))
    return made


def value(place: cuda.Place) -> set[int]:
    return set(place.read().tolist())


def test_a_kernel_runs_while_the_host_goes_on(place: cuda.Place):
    stream = cuda.Stream(0)
    slow = cuda.SlowFill(stream, place, NEW)

    assert not stream.is_done()
    assert value(place) == {OLD}
    slow.let_go()
    stream.synchronize()
    assert stream.is_done()
    assert value(place) == {NEW}


def test_a_stream_keeps_its_order(place: cuda.Place):
    stream = cuda.Stream(0)
    slow = cuda.SlowFill(stream, place, NEW)
    stream.fill(place, 3)
    slow.let_go()

    stream.synchronize()

    assert value(place) == {3}


def test_streams_do_not_wait_for_each_other(place: cuda.Place):
    slow = cuda.SlowFill(cuda.Stream(0), place, NEW)
    other = cuda.Stream(0)
    other.fill(place, 3)

    other.synchronize()

    assert value(place) == {3}
    slow.let_go()


def test_an_event_is_done_once_what_was_before_it_is(place: cuda.Place):
    stream = cuda.Stream(0)
    event = cuda.Event(0)
    assert event.is_done()  # nothing was recorded

    slow = cuda.SlowFill(stream, place, NEW)
    event.record(stream)

    assert not event.is_done()
    slow.let_go()
    event.synchronize()
    assert value(place) == {NEW}


def test_a_stream_waits_for_an_event_of_another_gpu(place: cuda.Place):
    first, second = cuda.Stream(0), cuda.Stream(1)
    target = cuda.Memory(1, 1000).place()
    target.write(np.zeros(1000, np.uint8))
    slow = cuda.SlowFill(first, place, NEW)
    second.wait(cuda.Event(0).record(first))
    second.fill(target, 9)

    assert not second.is_done()
    assert value(target) == {0}
    slow.let_go()
    second.synchronize()
    assert value(target) == {9}


def test_waiting_means_the_record_of_that_moment(place: cuda.Place):
    first, second = cuda.Stream(0), cuda.Stream(0)
    event = cuda.Event(0).record(first)
    slow = cuda.SlowFill(first, place, NEW)
    second.wait(event)
    event.record(first)

    second.synchronize()  # by what the event was when it was asked to wait

    assert not event.is_done()
    slow.let_go()


def test_an_event_that_is_destroyed_is_still_waited_for(place: cuda.Place):
    first, second = cuda.Stream(0), cuda.Stream(0)
    slow = cuda.SlowFill(first, place, NEW)
    event = cuda.Event(0).record(first)
    second.wait(event)
    del event

    assert not second.is_done()
    slow.let_go()
    second.synchronize()


def test_a_stream_that_is_destroyed_does_its_work(place: cuda.Place):
    stream = cuda.Stream(0)
    slow = cuda.SlowFill(stream, place, NEW)
    stream.destroy()

    assert value(place) == {OLD}
    slow.let_go()
    eventually(lambda: value(place) == {NEW}, 10, "the stream's work is done")


def test_the_default_stream_is_in_order_with_blocking_ones(place: cuda.Place):
    with cuda.on(0):
        blocking = cuda.ask("cuStreamCreateWithPriority", cuda.Handle, 0, 0)
    stream = cuda.Stream(0)
    stream.raw, own = blocking, stream.raw
    slow = cuda.SlowFill(stream, place, NEW)
    timer = threading.Timer(scaled(0.05), slow.let_go)
    timer.start()
    with cuda.on(0):
        cuda.call("cuMemsetD8Async", place.address, 3, place.size, None)
        cuda.call("cuStreamSynchronize", None)

    assert value(place) == {3}
    timer.join()
    with cuda.on(0):
        cuda.call("cuStreamDestroy_v2", own)


def test_a_host_function_runs_in_order_and_may_not_use_the_driver(place: cuda.Place):
    seen: list[int] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def look(_: int) -> None:
        seen.append(ctypes.c_uint8.from_address(place.address).value)
        seen.append(status_of("cuCtxSynchronize"))

    stream = cuda.Stream(0)
    stream.fill(place, NEW)
    with cuda.on(0):
        cuda.call("cuLaunchHostFunc", stream.raw, ctypes.cast(look, cuda.Handle), None)
    stream.fill(place, 3)
    stream.synchronize()

    assert seen == [NEW, 800]  # NOT_PERMITTED


def test_pageable_bytes_are_taken_at_the_call(place: cuda.Place):
    stream = cuda.Stream(0)
    slow = cuda.SlowFill(stream, place, NEW)
    bytes_ = np.full(1000, 4, np.uint8)
    with cuda.on(0):
        cuda.call("cuMemcpyHtoDAsync_v2", place.address, bytes_.ctypes.data, 1000, stream.raw)
    bytes_[:] = 5
    slow.let_go()
    stream.synchronize()

    assert value(place) == {4}


@pytest.mark.parametrize("current", [None, 1], ids=["none", "another"])
def test_a_launch_needs_the_context_of_its_stream(place: cuda.Place, current: int | None):
    stream = cuda.Stream(0)
    fill = ("cuMemsetD8Async", place.address, 3, place.size, stream.raw)

    if current is None:
        assert status_of(*fill) == 201
    else:
        with cuda.on(current):
            assert status_of(*fill) == 201

    stream.synchronize()
    assert value(place) == {OLD}


def test_handles_that_are_gone_are_errors(place: cuda.Place):
    stream, event = cuda.Stream(0), cuda.Event(0)
    raw, raw_event = stream.raw, event.raw
    stream.destroy()
    del event

    for call in ("cuStreamSynchronize", "cuStreamQuery", "cuStreamDestroy_v2"):
        assert status_of(call, raw) == 400
    for call in ("cuEventQuery", "cuEventSynchronize", "cuEventDestroy_v2"):
        assert status_of(call, raw_event) == 400


def test_an_image_that_is_none_is_refused(fake: None):
    out = cuda.Handle()
    with cuda.on(0):
        assert status_of("cuModuleLoadData", ctypes.byref(out), b"nonsense") == 200
        module = cuda.ask("cuModuleLoadData", cuda.Handle, b".version 7.0 test_fill_slowly")
        assert status_of("cuModuleGetFunction", ctypes.byref(out), module, b"rdma_kv_copy") == 500
