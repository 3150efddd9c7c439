"""What a process holds: descriptors, threads, memory, and what the kernel keeps for its NICs."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

# Of the kernel, one line each in `rdma resource show`.
RDMA_KINDS = ("pd", "cq", "qp", "mr")


class _HeapInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def heap_bytes() -> int:
    """Allocated by C and C++, and not freed: exact, where the resident size is a rough guess."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _HeapInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def resident_bytes() -> int:
    """Of memory that belongs to no file."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) << 10


def rdma_objects(pid: int) -> dict[str, int]:
    """What the kernel counts for one process, on all NICs."""
    counts = {}
    for kind in RDMA_KINDS:
        shown = subprocess.run(
            ["rdma", "resource", "show", kind], check=True, capture_output=True, text=True
        ).stdout
        counts[kind] = len(re.findall(rf"\bpid {pid}\b", shown))
    return counts


def usage(*, is_rdma: bool = False) -> dict[str, int]:
    """Of this process, now, without what the garbage collector can free."""
    gc.collect()
    counts = {
        name: len(list(Path(f"/proc/self/{kind}").iterdir()))
        for name, kind in (("descriptors", "fd"), ("threads", "task"))
    }
    counts["shared_memory"] = Path("/proc/self/maps").read_text().count("/dev/shm/")
    if is_rdma:
        counts |= rdma_objects(os.getpid())
    counts["python_blocks"] = sys.getallocatedblocks()
    counts["heap_bytes"] = heap_bytes()
    counts["resident_bytes"] = resident_bytes()
    return counts
