"""What to hold our figures against, measured in the same run."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable

import numpy as np

from .work import Work

IPERF3_SECONDS = 1


def memcpy_call(work: Work) -> Callable[[], object]:
    """Copies the same blocks within this process, on one thread, each byte once.

    NumPy's take() is one C loop of memcpy. It gathers: blocks are read where a write reads them,
    and put side by side. (`dst[ids] = src[ids]` would copy everything twice.)
    """
    source, (src, _) = work.filled_pool(), work.ids()
    side_by_side = np.zeros((len(src), work.block_bytes), np.uint8)
    return lambda: np.take(source, src, axis=0, out=side_by_side, mode="clip")


def iperf3_gb_per_s(write_bytes: int) -> float | None:
    """One TCP stream over the loopback interface, in writes of so many bytes; None: no iperf3."""
    program = shutil.which("iperf3")
    if program is None:
        return None
    port = str(_free_port())
    server = subprocess.Popen(
        [program, "-s", "-1", "-B", "127.0.0.1", "-p", port, "--forceflush"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        while "listening" not in server.stdout.readline():
            if server.poll() is not None:
                return None
        client = subprocess.run(
            f"{program} -c 127.0.0.1 -p {port} -J -t {IPERF3_SECONDS} -l {write_bytes}".split(),
            capture_output=True,
            text=True,
            timeout=IPERF3_SECONDS + 20,
        )
        received = json.loads(client.stdout)["end"]["sum_received"]
        return float(received["bits_per_second"]) / 8e9
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
