"""What the contract runs over: a transport, and the kind of memory on either side."""

from __future__ import annotations

from dataclasses import dataclass

from support import cuda


@dataclass(frozen=True)
class Route:
    """`memory` is that of tests/support/side.py: "host" or "device"."""

    transport: str
    prefill_memory: str = "host"
    decode_memory: str = "host"

    @property
    def is_on_the_host(self) -> bool:
        return self.prefill_memory == self.decode_memory == "host"

    def gpus(self, *, same_gpu: bool) -> tuple[int, int]:
        """Of prefill and of decode; -1: none."""
        last = 0 if same_gpu or cuda.count() < 2 else 1
        return (
            -1 if self.prefill_memory == "host" else 0,
            -1 if self.decode_memory == "host" else last,
        )


ROUTES = {
    **{name: Route(name) for name in ("cma", "tcp", "rdma", "loopback")},
    "cuda_ipc": Route("cuda_ipc", "device", "device"),
    # Staged: through page-locked host memory on the side of a GPU.
    "cma+gpu": Route("cma", "device", "device"),
    "tcp+gpu": Route("tcp", "device", "device"),
    "tcp+gpu>host": Route("tcp", "device", "host"),
    "tcp+host>gpu": Route("tcp", "host", "device"),
}
