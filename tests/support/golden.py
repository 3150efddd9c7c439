"""Messages as users see them: one small text each, strict but for what cannot be known.

A golden file has the class of the error on its first line and the message on the others, whose
breaks are read as spaces. A name in braces stands for something that differs from run to run.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "faults" / "golden"

_NUMBER = r"\d+"
_ADDRESS = r"\d+\.\d+\.\d+\.\d+:\d+"
_STREAM = f"{_ADDRESS} -> {_ADDRESS}"
# Which of them comes first is the kernel's business.
_END_OF_STREAM = (
    rf"(?:recv: end of stream on {_STREAM}"
    rf"|(?:sendmsg|send|recv): (?:Broken pipe|Connection reset by peer) \(errno {_NUMBER}\), "
    rf"on stream {_STREAM})"
)
_ITS_LOG = "it ended this link: its log says why"
_END_OF_PROCESS = (
    rf"(?:{_END_OF_STREAM}; the peer's process ended, or {_ITS_LOG}"
    rf"|process_vm_writev: No such process \(errno 3\), of process {_NUMBER}; it has ended"
    rf"|process_vm_writev: not called, process {_NUMBER} has closed its end of the link: "
    rf"it ended, or {_ITS_LOG})"
)
PLACEHOLDERS = {
    "port": _NUMBER,
    "pid": _NUMBER,
    "seconds": r"\d+(?:\.\d+)?",
    "address": _ADDRESS,
    "end of stream": _END_OF_STREAM,
    "end of process": _END_OF_PROCESS,
    "NIC": r"rxe\d port \d GID \d+ \(::ffff:10\.0\.0\.\d\) to ::ffff:10\.0\.0\.\d, MTU \d+",
    "queue pair": _NUMBER,
    "vendor error": r"0x[0-9a-f]+",
}


def assert_golden(error: BaseException | None, name: str, transport: str, **known: str) -> None:
    """The error is the one of `name.transport.txt`, else of `name.txt`."""
    path = FOLDER / f"{name}.{transport}.txt"
    if not path.exists():
        path = FOLDER / f"{name}.txt"
    kind, *lines = path.read_text().splitlines()
    wanted = f"{kind}: {' '.join(lines)}"
    seen = f"{type(error).__name__}: {error}"
    patterns = PLACEHOLDERS | {key: re.escape(text) for key, text in known.items()}
    patterns["transport"] = transport
    pieces = re.split(r"\{([^}]*)\}", wanted)
    pattern = "".join(
        patterns[piece] if number % 2 else re.escape(piece) for number, piece in enumerate(pieces)
    )
    assert re.fullmatch(pattern, seen), f"{path.name} says\n  {wanted}\nbut it was\n  {seen}"
