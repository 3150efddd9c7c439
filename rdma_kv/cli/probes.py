"""Looks at this machine and tries what can be tried on it alone: what the doctor reports."""

from __future__ import annotations

import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from rdma_kv import RdmaKvError, _core
from rdma_kv._cuda import nvrtc_candidates
from rdma_kv.cli.bench.pair import BenchError, checked_pair
from rdma_kv.cli.bench.work import Work

PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
PTRACE_MEANINGS = {
    "0": "a process may write to others of the same user",
    "1": "a process may write to its children only, unless it has CAP_SYS_PTRACE",
    "2": "only a process with CAP_SYS_PTRACE may write to others",
    "3": "no process may write to others, until the next boot",
}

# In the order in which `auto` prefers them.
TRIED = ("cma", "rdma", "tcp")
NOT_THERE_YET = ("shm",)


@dataclass(frozen=True)
class Probe:
    """Whether one transport can be used on this machine, and why or why not."""

    transport: str
    is_usable: bool
    reason: str


def facts() -> dict[str, str]:
    """What the build holds, and what the machine and its kernel offer."""
    return {
        **{f"build: {name}": value for name, value in _core.features().items()},
        "RDMA ports": _rdma_ports(),
        "ptrace scope": _ptrace_scope(),
        "locked memory": _locked_memory(),
        "network interfaces": ", ".join(name for _, name in socket.if_nameindex()),
    }


def transports() -> list[Probe]:
    """Tries each that needs no GPU: from process to process, one write, every byte checked."""
    absent = [Probe(name, False, "not in this version") for name in NOT_THERE_YET]
    return [_try_cuda_ipc(), *absent, *(_try(name) for name in TRIED)]


def _try_cuda_ipc() -> Probe:
    """Loads the copy kernel on every GPU; whether two of them reach each other, connect() tells."""
    _core.set_nvrtc_candidates([str(path) for path in nvrtc_candidates()])
    try:
        gpus = [device["name"] for device in _core.cuda_devices()]
        origins = {_core.load_copy_kernel(index) for index in range(len(gpus))}
    except RdmaKvError as error:
        return Probe("cuda_ipc", False, str(error))
    if not gpus:
        return Probe("cuda_ipc", False, "no GPU is visible here; see CUDA_VISIBLE_DEVICES")
    reason = f"the copy kernel, {' and '.join(sorted(origins))}, loads on {', '.join(gpus)}"
    return Probe("cuda_ipc", True, f"{reason}; `rdma-kv bench --gpu` moves blocks")


def _try(transport: str) -> Probe:
    work = Work(block_bytes=1024, contiguous=False)
    try:
        with checked_pair(transport, work):
            return Probe(transport, True, f"{work.bytes:,} bytes from process to process, checked")
    except (RdmaKvError, BenchError, ValueError) as error:
        return Probe(transport, False, str(error))


def _rdma_ports() -> str:
    try:
        ports = _core.rdma_devices()
    except RdmaKvError as error:
        return f"none: {error}"
    if not ports:
        return "none: libibverbs works, and knows no device"
    return "\n".join(
        f"{p['nic']} port {p['port']}: {p['state']}, {p['link_layer']}, MTU {p['mtu']}, "
        f"{p['rate_gbps']:g} Gb/s, {p['netdev'] or 'no interface'}, {len(p['gids'])} GIDs"
        for p in ports
    )


def _ptrace_scope() -> str:
    try:
        scope = PTRACE_SCOPE.read_text().strip()
    except OSError:
        return "not restricted: this kernel has no Yama"
    return f"{scope}: {PTRACE_MEANINGS.get(scope, 'unknown to this program')}"


def _locked_memory() -> str:
    soft, hard = (_size(limit) for limit in resource.getrlimit(resource.RLIMIT_MEMLOCK))
    return f"{soft} (may be raised to {hard}); rdma needs as much as the whole cache"


def _size(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024} KiB"
