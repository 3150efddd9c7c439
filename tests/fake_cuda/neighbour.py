"""A process that makes GPU memory, and opens that of others, on command.

`python -m fake_cuda.neighbour` reads one JSON list a line, a method and its arguments, and answers
with one JSON value a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from support import cuda


class Owner:
    """What the commands do."""

    def __init__(self) -> None:
        self._things: list[Any] = []

    def make(self, gpu: int, size: int, value: int) -> list[Any]:
        """An allocation full of one value: its number, and its handle."""
        memory = cuda.Memory(gpu, size)
        memory.place().write(np.full(size, value, np.uint8))
        self._things.append(memory)
        return [len(self._things) - 1, memory.handle()]

    def open(self, gpu: int, handle: str) -> int:
        self._things.append(cuda.Opened(gpu, handle))
        return len(self._things) - 1

    def open_twice(self, gpu: int, handle: str) -> list[int]:
        """The addresses that it is given."""
        opened = [cuda.Opened(gpu, handle) for _ in range(2)]
        self._things += opened
        return [one.address for one in opened]

    def read(self, number: int, offset: int, size: int) -> str:
        return self._things[number].place(offset, size).read().tobytes().hex()

    def write(self, number: int, offset: int, content: str) -> None:
        bytes_ = np.frombuffer(bytes.fromhex(content), np.uint8)
        self._things[number].place(offset, bytes_.size).write(bytes_)

    def free(self, number: int) -> None:
        self._things[number].free()

    def close(self, number: int) -> None:
        self._things[number].close()

    def import_chunk(self, gpu: int, pid: int, descriptor: int, size: int) -> int:
        """Maps what another process has exported; returns its number."""
        own = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
        handle = cuda.ask("cuMemImportFromShareableHandle", cuda.ctypes.c_ulonglong, own, 1)
        os.close(own)
        with cuda.on(gpu):
            self._things.append(cuda.Mapped(gpu, handle, size))
        return len(self._things) - 1


class Neighbour:
    """The test's end of one."""

    def __init__(self, libraries: Path) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fake_cuda.neighbour"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(libraries)},
        )

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any) -> Any:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"])
            return answer["result"]

        return call

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    assert cuda.count() == 2
    owner = Owner()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            answer = {"result": getattr(owner, method)(*arguments)}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
