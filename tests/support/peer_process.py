"""The peer process: makes communicators and uses them on command.

`python -m support.peer_process` reads one JSON object a line from standard input and answers with
one on standard output, in any order; each command runs on a thread of its own, so that a test can
wait for a notice here while it does something else. It ends with its standard input, which also
goes away with the test's process, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, TextIO

from support.cache import Shape
from support.side import Side


class Server:
    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._sides: dict[int, Side] = {}

    def open(self, number: int, role: str, shape: dict[str, Any], **more: Any) -> list[str]:
        """Makes a side; returns its address."""
        self._sides[number] = Side(role, Shape(**shape), **more)
        return list(self._sides[number].address)

    def forget(self, number: int) -> None:
        """Closes a side and drops it."""
        self._sides.pop(number).close()

    def serve(self, line: str) -> None:
        command = json.loads(line)
        answer: dict[str, Any] = {"call": command["call"]}
        try:
            target = self if command["side"] is None else self._sides[command["side"]]
            method = getattr(target, command["method"])
            answer["result"] = method(*command["args"], **command["kwargs"])
        except Exception as error:
            answer["error"] = [type(error).__name__, str(error)]
        with self._lock:
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()

    def close(self) -> None:
        for side in self._sides.values():
            side.close()


def main() -> None:
    # Answers keep the descriptor for themselves: a stray print() must not corrupt them.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = Server(answers)
    for line in sys.stdin:
        threading.Thread(target=server.serve, args=(line,), daemon=True).start()
    server.close()


if __name__ == "__main__":
    main()
