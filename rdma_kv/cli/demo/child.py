"""One role as a child process: `python -m rdma_kv.cli.demo.child ROLE`.

Standard input brings the settings, one line of JSON, then for prefill the peer's address, one line;
then it stays open for as long as the parent lives. Standard output carries the events.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import TextIO

from rdma_kv import RdmaKvError

from .events import Fields
from .roles import play_decode, play_prefill, play_reference
from .settings import DemoError, Settings

EXIT_FAILED = 3


def emit(event: str, fields: Fields) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def read_lines(source: TextIO, lines: queue.SimpleQueue[str]) -> None:
    """Passes lines on; at the end of the parent this process ends too, whatever it is doing."""
    for line in source:
        lines.put(line.strip())
    os._exit(EXIT_FAILED)


def play(role: str, lines: queue.SimpleQueue[str]) -> Fields:
    settings = Settings.from_json(lines.get())
    if role == "prefill":

        def find_peer() -> tuple[str, str]:
            host, port = json.loads(lines.get())
            return host, port

        return play_prefill(settings, find_peer, emit)
    if role == "decode":
        return play_decode(settings, "0", emit)
    return play_reference(settings, emit)


def main() -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(sys.stdin, lines), daemon=True).start()
    started = time.monotonic()
    try:
        result = play(sys.argv[1], lines)
    except DemoError as error:
        emit("failed", {"text": str(error)})
        sys.exit(EXIT_FAILED)
    except (RdmaKvError, ValueError) as error:
        emit("failed", {"text": f"{type(error).__name__}: {error}"})
        sys.exit(EXIT_FAILED)
    emit("result", {**result, "wall_s": time.monotonic() - started})


if __name__ == "__main__":
    main()
