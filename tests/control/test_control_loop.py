"""The control thread: runs tasks, outlives their errors, and sleeps when there is nothing to do."""

from __future__ import annotations

import os
import threading
import time

import pytest

from rdma_kv._control import ControlLoop


@pytest.fixture
def loop():
    loop = ControlLoop("test")
    loop.start()
    yield loop
    assert loop.stop(5)


def test_tasks_run_in_their_order_on_one_thread(loop):
    seen = []
    for number in range(100):
        loop.post(lambda number=number: seen.append((number, threading.get_ident())))

    assert loop.run(lambda: None, 5)

    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1


def test_a_task_that_fails_is_logged_and_the_next_one_runs(loop, caplog):
    loop.post(lambda: 1 // 0)

    assert loop.run(lambda: None, 5)

    assert "ZeroDivisionError" in caplog.text


def test_a_readable_descriptor_is_handled(loop):
    reading, writing = os.pipe()
    got = threading.Event()

    def handle():
        os.read(reading, 1)
        got.set()

    loop.run(lambda: loop.watch(reading, handle), 5)
    os.write(writing, b"x")

    assert got.wait(5)
    loop.run(lambda: loop.forget(reading), 5)
    os.close(reading)
    os.close(writing)


def test_the_thread_burns_nothing_while_idle(loop):
    loop.run(lambda: None, 5)
    before = time.process_time()

    time.sleep(0.5)

    assert time.process_time() - before < 0.05


def test_ticks_come_until_they_are_stopped(loop):
    class Clock:
        period_s = 0.01
        ticks = 0
        enough = threading.Event()

        def tick(self, now, late_s):
            self.ticks += 1
            if self.ticks == 3:
                loop.stop_ticking(self)
                self.enough.set()

    clock = Clock()
    loop.run(lambda: loop.start_ticking(clock), 5)

    assert clock.enough.wait(5)
    time.sleep(0.05)
    assert clock.ticks == 3


def test_a_stall_of_the_thread_is_told_to_who_judges_peers(loop):
    late = []

    class Judge:
        period_s = 0.01

        def tick(self, now, late_s):
            late.append(late_s)

    judge = Judge()
    loop.run(lambda: loop.start_ticking(judge), 5)
    loop.run(lambda: time.sleep(0.3), 5)
    loop.run(lambda: loop.stop_ticking(judge), 5)

    assert max(late) > 0.2


def test_after_the_end_nothing_is_taken(loop):
    assert loop.stop(5)

    assert not loop.post(lambda: None)
    assert not loop.run(lambda: None, 5)
