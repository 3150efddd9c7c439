"""Shows what sanitizers have reported, and ends with 1 when there was something.

Usage: sanitizer_reports.py FOLDER, where each file is what one process wrote to its log_path.

Leaks that our core has no part in are counted and not shown: CPython, NumPy and others leave memory
behind when a process ends. They cannot be suppressed by name: Python's own frames are below every
call of ours, and a suppression matches any frame.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

LEAK = re.compile(r"(Direct|Indirect) leak of \d+ byte")
# Not NumPy's, which is a folder.
OURS = re.compile(r"\(_core\.[^/]*\.so\+0x")
# What differs between two reports of one fault.
VARIES = re.compile(r"0x[0-9a-f]+|\bpid=\d+|==\d+==|\btid=\d+|\b[TM]\d+\b")
FRAMING = re.compile(r"=+$|==\d+==ERROR: LeakSanitizer|SUMMARY: AddressSanitizer: \d+ byte")


def split(text: str) -> list[str]:
    """Leaks one by one, other reports whole."""
    if "ERROR: LeakSanitizer: detected memory leaks" in text:
        parts = [part.strip("\n") for part in text.split("\n\n")]
        return [part for part in parts if not all(map(FRAMING.match, part.splitlines()))]
    parts = re.split(r"(?m)^=+\n(?===|WARNING)", text)
    return [part.strip("\n") for part in parts if part.strip("=\n")]


def is_of_others(record: str) -> bool:
    return bool(LEAK.match(record)) and not OURS.search(record)


def main(folder: Path) -> int:
    of_others = 0
    found: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        for record in split(file.read_text(errors="replace")):
            if is_of_others(record):
                of_others += 1
                continue
            key = VARIES.sub("", record)
            found[key] += 1
            shown.setdefault(key, f"{file.name}:\n{record}")
    for key, record in shown.items():
        print(f"\n======== {found[key]} x, first in {record}")
    if of_others:
        print(f"{of_others} leaks without our core were left out")
    if found:
        print(f"{found.total()} reports, {len(found)} different ones")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
