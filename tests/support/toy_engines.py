"""What runs in the child processes of tests/bench/test_gpu.py: they find it by name."""

from __future__ import annotations

import os
import signal
import time

from rdma_kv.cli.bench.gpu.place import Place
from rdma_kv.cli.bench.gpu.work import Job
from rdma_kv.cli.bench.work import Times


class Sick:
    """Does what engines do on a bad day."""

    def answer(self, number: int) -> int:
        return number + 1

    def fail(self) -> None:
        raise RuntimeError("out of luck\nand of paper")

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(self) -> None:
        time.sleep(3600)


class Told:
    def told(self) -> str:
        return os.environ["UCX_TLS"]


class Toy:
    def __init__(self, place: Place) -> None:
        self.jobs = 0

    def open(self, job: Job, address: object = None) -> str:
        self.jobs += 1
        return "here"

    def release(self) -> None:
        pass


class Writer(Toy):
    def write(self) -> None:
        pass

    def measure(self, seconds: float) -> Times:
        return Times(9, float(self.jobs), 2.0)


class Honest(Toy):
    def wrong(self, job: Job) -> str | None:
        return None


class Corrupting(Toy):
    def wrong(self, job: Job) -> str | None:
        return "region 0, block 7"
