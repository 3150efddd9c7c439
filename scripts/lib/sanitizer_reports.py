"""Shows what sanitizers have reported, and ends with 1 when there was something.

Usage: sanitizer_reports.py FOLDER, where each file is what one process wrote to its log_path.

Only our core is built with sanitizers. What others did by themselves is counted and not shown:

* A race in which one of the two accesses is not ours. CPython, NumPy or ZeroMQ made it in a call
  of memcpy or free that was seen, while the atomics and plain instructions that put it in order
  were not. So is a test that looks at a cache in the middle of a write to see that nothing lands
  outside of it, or whom another process has told that the write is over.
* A leak, or a report of any other kind, in which our core has no frame.

Suppressions of the sanitizers cannot say so: they match any frame, and Python is below all of ours.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

OURS = re.compile(r"/rdma_kv/_core\.[^/]*\.so\b")
# Frames that act for who calls them.
TRANSPARENT = re.compile(r"/(libtsan|libasan|libubsan|libstdc\+\+|libgcc_s|libc)\.so")
FRAME = re.compile(r" +#\d+ ")
ACCESS = re.compile(r" +(Previous )?(atomic )?(read|write) of size \d+ ", re.IGNORECASE)
LEAK = re.compile(r"(Direct|Indirect) leak of \d+ byte")
# What differs between two reports of one fault.
VARIES = re.compile(r"0x[0-9a-f]+|\bpid=\d+|==\d+==|\btid=\d+|\b[TM]\d+\b|\d+ (byte|object)")
FRAMING = re.compile(r"=+$|==\d+==ERROR: LeakSanitizer|SUMMARY: AddressSanitizer: \d+ byte")


def split(text: str) -> list[str]:
    """Leaks and races one by one, other reports whole."""
    if "ERROR: LeakSanitizer: detected memory leaks" in text:
        parts = re.split(r"\n\n+", text)
        return [p for p in parts if not all(map(FRAMING.match, p.strip().splitlines()))]
    parts = re.split(r"(?m)^={10,}\n|^ThreadSanitizer: reported \d+ warnings\n", text)
    return [part.strip("\n") for part in parts if part.strip()]


def is_made_by_us(stack: str) -> bool:
    """Who made an access; one whose stack is lost may be ours."""
    frames = [line for line in stack.splitlines() if FRAME.match(line)]
    actor = next((frame for frame in frames if not TRANSPARENT.search(frame)), None)
    return actor is None or bool(OURS.search(actor))


def concerns_us(report: str) -> bool:
    if "ThreadSanitizer: data race" in report:
        stacks = [part for part in report.split("\n\n") if ACCESS.search(part)]
        return all(map(is_made_by_us, stacks))
    if LEAK.match(report) or "WARNING: ThreadSanitizer" in report:
        return bool(OURS.search(report))
    return True  # whoever crashes, it must not


def main(folder: Path) -> int:
    of_others: Counter[str] = Counter()
    found: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        for report in split(file.read_text(errors="replace")):
            if not concerns_us(report):
                of_others["leaks" if LEAK.match(report) else "races"] += 1
                continue
            key = VARIES.sub("", report)
            found[key] += 1
            shown.setdefault(key, f"{file.name}:\n{report}")
    for key, report in shown.items():
        print(f"\n======== {found[key]} x, first in {report}")
    for kind, count in of_others.items():
        print(f"left out: {count} {kind} without our core")
    if found:
        print(f"{sum(found.values())} reports, {len(found)} different ones")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
