"""The C++ core. Private: users call `rdma_kv`, which re-exports what is public."""

from collections.abc import Sequence
from typing import Any

class CoreError(Exception):
    """Base of what the core raises besides ValueError and TypeError; set_error_types() maps it."""

def set_error_types(types: dict[str, type[Exception]]) -> None:
    """Tells the core which Python exception to raise for each code.

    Keys: config, registration, handshake, layout_mismatch, authentication, unavailable,
    transfer, peer_lost, timeout, cancelled, revoked, not_quiesced.
    """

def features() -> dict[str, str]:
    """What this build holds: {"compiler", "verbs": "yes"/"no: reason", "sanitize"}."""

def drain_log() -> list[tuple[int, str]]:
    """Waiting log lines of the core as (logging level, text)."""

def log_fd() -> int:
    """Readable while log lines wait."""

# ---- kv: pure arithmetic -------------------------------------------------------------------

class Geometry:
    """Shape of one side. tensors: (kind 0..3, block_bytes, stride_bytes), in order of kind.

    Kinds: 0 key, 1 value, 2 key scale, 3 value scale. tp_size 0: not declared.
    """

    def __init__(
        self,
        layers: int,
        block_count: int,
        tensors: Sequence[tuple[int, int, int]],
        dtype: str = "",
        tp_size: int = 1,
        tp_rank: int = 0,
    ) -> None: ...
    @property
    def layers(self) -> int: ...
    @property
    def block_count(self) -> int: ...
    @property
    def tensors(self) -> list[tuple[int, int, int]]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def tp_size(self) -> int: ...
    @property
    def tp_rank(self) -> int: ...

class Layout:
    """A Geometry with addresses. bases, devices: layers * tensors entries, layer-major;
    device -1 is host memory."""

    def __init__(
        self, geometry: Geometry, bases: Sequence[int], devices: Sequence[int]
    ) -> None: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def regions(self) -> list[tuple[int, int, int]]:
        """(base, bytes, device) per region."""

def agree(prefill: Geometry, decode: Geometry) -> list[tuple[int, int, int]]:
    """(src_offset, dst_offset, bytes) of a block per tensor; raises the layout_mismatch error."""

def plan_extents(
    prefill: Layout, decode: Layout, src: Any, dst: Any, first_layer: int, layer_count: int
) -> list[tuple[int, int, int, int]]:
    """For tests: every extent (src address, dst address, bytes, region) of a write."""

# ---- engine --------------------------------------------------------------------------------

class Transfer:
    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks (GIL released, signals honoured) until it ended or the time is up; True: ended.

        Raises the transfer's error when it failed.
        """
    def done(self) -> bool: ...
    def cancel(self) -> None: ...
    def error(self) -> Exception | None: ...
    def fileno(self) -> int: ...
    @property
    def stats(self) -> dict[str, int]:
        """blocks, bytes, runs, submitted_ns, started_ns, finished_ns.

        Times are of CLOCK_MONOTONIC; 0: not yet.
        """

class Peer:
    """A decode peer with an open link; from one of the open_* functions."""

    def write(
        self,
        src: Any,
        dst: Any,
        first_layer: int,
        layer_count: int,
        tag: int,
        timeout_s: float,
        notify: bool = True,
        after: tuple[int, int] = ...,
    ) -> Transfer:
        """src, dst: list, tuple, or buffer of int32/int64, 1-D. Raises before anything moves.

        notify: send a notice with the tag; without, the tag only serves revoke().
        after: (0, 0), or (1, CUevent) or (2, CUstream): what the copy waits for, on the GPU where
        the transport can, else in this call."""
    def write_wait(
        self,
        src: Any,
        dst: Any,
        first_layer: int,
        layer_count: int,
        tag: int,
        timeout_s: float,
        notify: bool = True,
        after: tuple[int, int] = ...,
    ) -> None:
        """write() and wait() in one, with the calling thread driving the link: the fast way.

        On Ctrl-C the write is cancelled, and quiesced, before KeyboardInterrupt leaves.
        """
    def write_now(
        self,
        src: Any,
        dst: Any,
        first_layer: int,
        layer_count: int,
        tag: int,
        timeout_s: float,
    ) -> None:
        """write_wait() with a notice, after nothing."""
    def write_traced(
        self,
        src: Any,
        dst: Any,
        first_layer: int,
        layer_count: int,
        tag: int,
        timeout_s: float,
    ) -> dict[str, int]:
        """write_wait(), for benches. When it was entered (ns of CLOCK_MONOTONIC), and the
        nanoseconds from then to: planned, submitted, tabled, launched, landed, completed;
        0: the transport has no such stage."""
    @property
    def alive(self) -> bool: ...
    def look(self) -> bool:
        """Whether it is alive, after a look at the link instead of the last news of it."""
    @property
    def name(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def transport(self) -> str: ...
    def describe(self) -> str: ...
    def failure(self) -> Exception | None: ...
    def lose(self, why: str) -> None:
        """Breaks the link: what is under way fails with PeerLost(why) once it is quiesced."""
    def close(self, timeout_s: float) -> None: ...
    def revoke(self, tag: int) -> list[Transfer]:
        """Stops every write with this tag and refuses later ones; returns those not yet ended."""
    def allow(self, tag: int) -> None: ...
    def unquiesced(self) -> list[tuple[int, int, int, list[tuple[int, int, int]]]]:
        """Writes that failed with NotQuiesced and may still land: (tag, first layer, layer count,
        runs of (local block, remote block, count)). Watched on until the peer confirms."""
    @property
    def is_over(self) -> bool:
        """The link has ended, and nothing of it can land any more."""
    def confirm_quiesced(self) -> None:
        """The peer has said by another way that it has ended this link: what still waits for
        that fails now, with the first cause."""
    def counters(self) -> dict[str, int]:
        """transfers_done, transfers_failed, blocks_written, bytes_written, runs_written, queued,
        posts, work_requests, completions."""

class Ticket:
    link_id: int
    token: bytes

class Engine:
    def __init__(self, layout: Layout) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def layout(self) -> Layout: ...
    def close(self, timeout_s: float) -> None: ...

    # prefill
    def close_peers(self, timeout_s: float) -> None:
        """Peer.close() of all at the same time."""

    # decode
    def listen(self, address: str, port: int) -> int:
        """Opens the data port on a numeric address; returns the port."""
    def end_link(self, link_id: int, why: str, timeout_s: float = 0.0) -> bool:
        """True once nothing of it can land here any more; False when that takes longer."""
    def end_epoch(self, epoch: int, why: str, timeout_s: float = 0.0) -> bool:
        """The same for all links of one peer, also those that had ended before."""
    def end_confirmed_links(self, link_ids: Sequence[int], epoch: int, why: str) -> None:
        """Of links of this peer, which has said itself that it writes no more over them."""
    def unquiesced_links(self) -> list[tuple[int, str, str, int, str]]:
        """Ended links of which bytes may still land: (link_id, transport, origin name, origin
        epoch, why it ended). Only what the sender itself has to stop: cma."""
    def take_ended_links(self) -> list[tuple[int, str]]:
        """(link_id, why) of links that ended since the last call."""
    def settle_notices(self) -> None:
        """Delivers every notice that has arrived, also those that nobody has looked at yet."""
    def ended_links_fd(self) -> int:
        """Readable while take_ended_links() has something to tell."""
    def revoke_notices(self, tag: int) -> None:
        """Forgets notices with this tag, those that wait and those that come, until allowed."""
    def allow_notices(self, tag: int) -> None: ...
    def discard_notices_of_epoch(self, epoch: int) -> None: ...
    def inbound_links(self) -> list[tuple[int, str, str, int, bool]]:
        """(link_id, transport, origin name, origin epoch, is_open)."""
    def take_notices(self) -> list[tuple[int, str, int]]:
        """(tag, origin name, origin epoch), oldest first; never blocks."""
    def wait_notices(self, tag: int, count: int, timeout_s: float) -> int:
        """Takes `count` notices of `tag` when they are there and returns count; else how many
        were there at the deadline (none taken). Raises ValueError when the engine is closed,
        the "revoked" error when the tag is."""
    def notice_fd(self) -> int: ...

class RemoteEnd:
    """What the handshake told about the decode end; see transport/remote_end.h.

    bases: one address per region of the peer; empty when they are not known (enough for tcp).
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        host: str,
        data_port: int,
        epoch: int,
        link_id: int,
        token: bytes,
        geometry: Geometry,
        bases: Sequence[int],
        timeout_s: float,
    ) -> None: ...

# Each transport: accept_* on decode, open_* on prefill. All raise the "unavailable" error with one
# sentence when the transport cannot be used, the "handshake" error when opening fails.

def tcp_accept(
    engine: Engine, origin: str, epoch: int, prefill: Geometry, streams: int
) -> Ticket: ...
def tcp_open(engine: Engine, remote: RemoteEnd, streams: int) -> Peer: ...
def cma_offer(engine: Engine) -> dict[str, Any]:
    """{"pid": int, "boot_id": str, "pid_namespace": int, "probe_address": int,
    "probe_nonce": bytes}."""

def cma_accept(
    engine: Engine, origin: str, epoch: int, prefill: Geometry, prefill_pid: int = 0
) -> Ticket:
    """prefill_pid: of the peer, when its boot id and pid namespace are ours; else 0. Where Yama
    restricts ptrace to 1, this one process is allowed to write here while its link lives."""

def cma_open(engine: Engine, remote: RemoteEnd, offer: dict[str, Any]) -> Peer: ...
def cuda_devices() -> list[dict[str, Any]]:
    """name, compute_capability, write_ordering of each. Raises TransportUnavailable: no driver."""

def set_nvrtc_candidates(paths: list[str]) -> None: ...
def compile_copy_kernel(major: int, minor: int) -> int:
    """Compiles it by NVRTC for a compute capability; the image's bytes. Needs no GPU."""

def load_copy_kernel(device: int) -> str:
    """Compiles and loads it; how it was compiled. Raises TransportUnavailable."""

def cuda_read(device: int, address: int, size: int) -> bytes:
    """A copy of device memory. Raises TransportUnavailable with what the driver said."""

class CudaExports:
    """Decode's device memory, put so that another process can map it. Raises
    TransportUnavailable: memory that cannot be shared."""

    def __init__(self, engine: Engine) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def pid_namespace(self) -> int: ...
    @property
    def segments(self) -> list[tuple[int, list[tuple[int, bytes, int]]]]:
        """(address, [(bytes, handle or none, descriptor or -1)])."""

def cuda_ipc_check(engine: Engine) -> None:
    """Raises TransportUnavailable: the blocks are not on one GPU, or the kernel cannot be had."""

def cuda_ipc_accept(
    engine: Engine, origin: str, epoch: int, prefill: Geometry, prefill_pid: int = 0
) -> Ticket: ...
def cuda_ipc_open(engine: Engine, remote: RemoteEnd, offer: dict[str, Any]) -> Peer: ...

class Staging:
    """What this side needs to carry its blocks through host memory, over a link of host memory.
    Raises TransportUnavailable: the blocks are not on one GPU, or the kernel cannot be had.

    A ring is (address, slots, bytes of a slot, whether its blocks are on a GPU)."""

    def __init__(self, engine: Engine) -> None: ...
    def accept_tcp(
        self, engine: Engine, origin: str, epoch: int, prefill: Geometry, streams: int
    ) -> tuple[Ticket, tuple[int, int, int, bool]]: ...
    def accept_cma(
        self, engine: Engine, origin: str, epoch: int, prefill: Geometry, prefill_pid: int
    ) -> tuple[Ticket, tuple[int, int, int, bool]]: ...
    def open_tcp(
        self, engine: Engine, remote: RemoteEnd, ring: tuple[int, int, int, bool], streams: int
    ) -> Peer: ...
    def open_cma(
        self,
        engine: Engine,
        remote: RemoteEnd,
        ring: tuple[int, int, int, bool],
        offer: dict[str, Any],
    ) -> Peer: ...

def loopback_accept(engine: Engine, origin: str, epoch: int, prefill: Geometry) -> Ticket: ...
def loopback_open(engine: Engine, remote: RemoteEnd) -> Peer: ...

class LoopbackFaults:
    """What loopback links of this process do wrong, from now on; for tests."""

    def drop(self, transfers: int) -> None:
        """The next transfers never complete by themselves."""
    def delay(self, seconds: float) -> None:
        """Every later transfer takes this much longer."""
    def cut(self, after_bytes: int) -> None:
        """Links break once they moved this many more bytes."""
    def clear(self) -> None: ...

def loopback_faults() -> LoopbackFaults: ...

# ---- rdma ----------------------------------------------------------------------------------

def rdma_devices() -> list[dict[str, Any]]:
    """Every port of every device: {"nic": str, "port": int, "state": str, "link_layer": str,
    "mtu": int, "lid": int, "netdev": str, "rate_gbps": float, "pci": str,
    "gids": [{"index": int, "gid": bytes, "type": "RoCE v2" | "RoCE v1" | "IB", "text": str}]}.

    Raises the "unavailable" error when libibverbs cannot be opened.
    """

def peer_memory_module() -> str:
    """The kernel module, if one is loaded, that lets a NIC pin GPU memory by its address."""

class RdmaRail:
    """One NIC port with the engine's regions registered on it, once for all peers."""

    def __init__(
        self,
        engine: Engine,
        nic: str,
        gid_index: int,
        ib_timeout: int,
        relaxed_ordering: bool,
        remote_read: bool,
        most_mr_bytes: int = 0,
        remote_write: bool = True,
        flush: str = "",
    ) -> None:
        """nic: a name, or name:port. gid_index -1: automatic. remote_read: this side's peers
        flush by reading. most_mr_bytes: cut regions as for a NIC that takes no larger memory
        region; 0: as this NIC does. remote_write False: peers may not write, for a side that only
        sends. flush: whether peers flush by reading, and why; describe() shows it. Raises
        ValueError (unknown NIC or GID index; names those that exist), the "unavailable" error (no
        active port) or the "registration" error."""
    @property
    def nic(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def gid(self) -> bytes: ...
    @property
    def gid_index(self) -> int: ...
    @property
    def gid_reason(self) -> str:
        """Why this GID, in one sentence."""
    @property
    def lid(self) -> int: ...
    @property
    def mtu(self) -> int:
        """Bytes: 256..4096."""
    @property
    def link_layer(self) -> str: ...
    @property
    def rkeys(self) -> list[int]:
        """One per region; where the NIC cannot register a region whole, one per chunk of it."""
    @property
    def registered_bytes(self) -> int: ...
    @property
    def gpu_memory(self) -> str:
        """How the NIC reaches regions on a GPU, and why by no better way; "": there are none."""
    @property
    def remote_read(self) -> bool: ...
    def describe(self) -> str: ...

class RdmaEndpoint:
    """One side's queue pairs."""

    def __init__(
        self, gid: bytes, lid: int, mtu: int, link_layer: str, qps: Sequence[tuple[int, int]]
    ) -> None:
        """qps: (queue pair number, first packet sequence number)."""
    @property
    def gid(self) -> bytes: ...
    @property
    def lid(self) -> int: ...
    @property
    def mtu(self) -> int: ...
    @property
    def link_layer(self) -> str: ...
    @property
    def qps(self) -> list[tuple[int, int]]: ...

def rdma_accept(
    engine: Engine, rail: RdmaRail, origin: str, epoch: int, prefill: Geometry, remote: RdmaEndpoint
) -> tuple[Ticket, RdmaEndpoint]:
    """Makes this side's queue pairs, connects them to `remote` and waits for the link's stream."""

class RdmaConnector:
    """Prefill's half-open link: queue pairs that are not connected yet."""

    def __init__(self, engine: Engine, rail: RdmaRail, qps: int) -> None: ...
    @property
    def endpoint(self) -> RdmaEndpoint: ...
    def connect(
        self, remote: RemoteEnd, endpoint: RdmaEndpoint, rkeys: Sequence[int], flush: bool
    ) -> Peer:
        """flush: read back the last block of each region before the notice."""

# ---- cuda and NICs -------------------------------------------------------------------------

def gpu_direct_devices() -> list[dict[str, Any]]:
    """What each GPU says of NICs that reach its memory: {"name": str, "dma_buf", "peer_memory",
    "ordering", "flush_options": int | None}; None: the driver does not know the question.

    Raises the "unavailable" error when there is no driver or no GPU.
    """

def flush_plan(devices: Sequence[int], forced: bool | None) -> tuple[bool, bool, str]:
    """Whether prefill has to read back what it writes to these devices, whether that is enough,
    and why. forced: as KVCACHE_GDRCOPY_FLUSH_ENABLE; None: auto."""

def flush_writes(device: int) -> None:
    """cuFlushGPUDirectRDMAWrites: what NICs have written by now can be read by kernels.

    No transport calls it: see src/cuda/write_order.h.
    """

class DmaBuf:
    """Device memory as a dma-buf: whole pages around a range."""

    def __init__(self, address: int, size: int, device: int) -> None:
        """Raises the "unavailable" error, saying why the range cannot be had as one."""
    @property
    def fd(self) -> int:
        """Open as long as this object lives."""
    @property
    def offset(self) -> int:
        """Of the range in the buffer."""
    @property
    def bytes(self) -> int:
        """Of the buffer."""

class ProbeMemory:
    """A piece of device memory to try things on."""

    def __init__(self, device: int, size: int) -> None: ...
    @property
    def address(self) -> int: ...
