"""One communicator on memory of its own, with what a test wants to do to it.

The same class serves in the test's process and, behind `support.peer_process`, in another one:
there arguments and results travel as JSON, so both are kept to what JSON can say.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import select
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rdma_kv import Config, PeerInfo, RDMACommunicator, TransferError
from support.cache import Cache, Shape
from support.device_cache import DeviceCache
from support.load import Load
from support.patience import scaled
from support.usage import usage

HERE = "127.0.0.1"


class Side:
    """A cache and its communicator. `settings` are KVCACHE_* variables, the only ones it sees.

    `memory` is "host", or an arrangement of support.device_cache on GPU `gpu`.
    """

    def __init__(
        self,
        role: str,
        shape: Shape,
        settings: dict[str, str],
        *,
        port: str = "0",
        seed: int = 0,
        reconnect: bool = True,
        memory: str = "host",
        gpu: int = -1,
    ) -> None:
        self.shape = shape
        self.seed = seed
        self.cache = (
            Cache(shape, seed)
            if memory == "host"
            else DeviceCache(shape, seed, gpu=gpu, arrangement=memory)
        )
        give = self.cache.arrays if shape.dtype and not shape.padding else self.cache.pointers
        names = shape.tensors()
        extra: dict[str, Any] = {"tp_size": shape.tp_size, "tp_rank": shape.tp_rank}
        if shape.padding:
            extra["block_stride_bytes"] = shape.block_bytes + shape.padding
        if shape.scale_bytes:
            extra["scale_block_bytes"] = shape.scale_bytes
            extra["key_scales"] = give("key_scale")
            if "value_scale" in names:
                extra["value_scales"] = give("value_scale")
        self.comm = RDMACommunicator(
            role=role,
            gpu_idx=gpu,
            port=port,
            local_key_cache=give("key"),
            local_value_cache=give("value") if "value" in names else [],
            block_number=shape.blocks,
            block_bytes=shape.block_bytes,
            config=Config.from_env(settings),
            reconnect=reconnect,
            **extra,
        )
        self.address = (HERE, str(self.comm.port)) if role == "decode" else (HERE, "0")

    # ---- memory ----

    def fill(self, seed: int) -> None:
        self.cache.fill(seed)

    def digests(self) -> dict[str, str]:
        return self.cache.digests()

    def block_digests(self) -> dict[str, list[str]]:
        return self.cache.block_digests()

    def read(self, name: str, layer: int, first: int, end: int) -> str:
        """The payload of neighbouring blocks, as hexadecimal digits."""
        return self.cache.blocks(name, layer)[first:end].copy().tobytes().hex()

    def flip(self, name: str, layer: int, offset: int) -> None:
        self.cache.flip(name, layer, offset)

    def swap(self, name: str, layer: int, one: int, other: int) -> None:
        self.cache.swap(name, layer, one, other)

    def changed_within(self, seconds: float) -> bool:
        """Whether any byte changes from now on, for so long."""
        first = self.digests()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.digests() != first:
                return True
            time.sleep(0.005)
        return self.digests() != first

    def memory(self) -> Cache:
        """A copy of all bytes as they are now."""
        return self.cache.copy()

    def places(self) -> list[list[Any]]:
        return self.cache.places()

    # ---- decode ----

    def start(self, method: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begins a call on a thread of its own and returns at once."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(getattr(self, method)(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def received(self, tag: int, timeout_s: float, count: int = 1) -> None:
        self.comm.received(tag, scaled(timeout_s), count)

    def received_digests(self, tag: int, timeout_s: float) -> dict[str, str]:
        """All digests, taken at the instant of the notice."""
        self.comm.received(tag, scaled(timeout_s))
        return self.digests()

    def notices(self) -> list[list[Any]]:
        """[tag, epoch, peer] of each notice that waits."""
        return [[n.tag, n.epoch, n.peer] for n in self.comm.poll_received()]

    def revoke(self, what: int | str, timeout_s: float = 5.0) -> None:
        self.comm.revoke(what, timeout_s=scaled(timeout_s))

    def revoke_epoch(self, epoch: int) -> None:
        """As revoke() with the PeerInfo of that life."""
        [peer] = [peer for peer in self.comm.peers() if peer.epoch == epoch]
        self.comm.revoke(peer, timeout_s=scaled(5))

    def revoke_life(self, name: str, epoch: int) -> None:
        """As revoke() with the PeerInfo of a peer that may be gone."""
        self.comm.revoke(PeerInfo(name, epoch, ""), timeout_s=scaled(5))

    def allow(self, tag: int) -> None:
        self.comm.allow(tag, timeout_s=scaled(5))

    def departed(self) -> list[list[Any]]:
        """[peer, epoch, reason, is_quiesced] of each peer that went."""
        gone = self.comm.poll_departed()
        return [[d.peer, d.epoch, d.reason, d.is_quiesced] for d in gone]

    def peer_names(self) -> list[str]:
        """Of those connected."""
        return [peer.name for peer in self.comm.peers()]

    def notices_by_descriptor(self, count: int, timeout_s: float) -> list[int]:
        """Tags, gathered by waiting for the descriptor only."""
        tags: list[int] = []
        readable = select.poll()  # select() knows no descriptor above 1023, and a fake GPU has many
        readable.register(self.comm.fileno(), select.POLLIN)
        deadline = time.monotonic() + scaled(timeout_s)
        while len(tags) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not readable.poll(left * 1000):
                raise AssertionError(f"the descriptor told of {len(tags)} notices, not {count}")
            tags += [n.tag for n in self.comm.poll_received()]
        return tags

    def notices_by_iteration(self, count: int, timeout_s: float) -> list[int]:
        """Tags, gathered by `async for`."""

        async def gather() -> list[int]:
            tags: list[int] = []
            async for notice in self.comm:
                tags.append(notice.tag)
                if len(tags) == count:
                    break
            return tags

        async def bounded() -> list[int]:
            return await asyncio.wait_for(gather(), scaled(timeout_s))

        return asyncio.run(bounded())

    # ---- prefill ----

    def connect(self, address: Sequence[str], timeout_s: float = 20) -> bool:
        return self.comm.connect(*address, timeout_s=scaled(timeout_s))

    def is_connected(self, address: Sequence[str]) -> bool:
        return self.comm.is_connected(*address)

    def transport_to(self, address: Sequence[str]) -> str:
        name = ":".join(address)
        return {peer.name: peer.transport for peer in self.comm.stats().peers}[name]

    def disconnect(self, address: Sequence[str]) -> None:
        self.comm.disconnect(*address)

    def write(
        self,
        address: Sequence[str],
        src: Sequence[int],
        dst: Sequence[int],
        *,
        layers: Sequence[int] | None = None,
        tag: int = 0,
        timeout_s: float = 30,
    ) -> None:
        """Writes and waits; `layers` [first, end) or all."""
        self.comm.write_cache_async(
            *address,
            src,
            dst,
            range(*layers) if layers is not None else None,
            tag=tag,
            timeout_s=scaled(timeout_s),
        ).wait()

    def write_after(
        self, address: Sequence[str], src: Sequence[int], dst: Sequence[int], layer: int, event: int
    ) -> None:
        """The plain call, after a raw CUevent."""
        self.comm.write_cache(*address, src, dst, layer, after=event)

    def write_again_and_again(
        self, address: Sequence[str], src: Sequence[int], dst: Sequence[int], *, tag: int = 0
    ) -> str:
        """Writes until it fails; returns how."""
        while True:
            try:
                self.comm.write_cache(*address, src, dst, tag=tag, timeout_s=scaled(30))
            except TransferError as error:
                return f"{type(error).__name__}: {error}"

    def start_load(self, address: Sequence[str], **how: Any) -> None:
        """Writes into lanes from now on; one load at a time."""
        self._load = Load(self.comm, address, **how)
        self._load.start()

    def load_flows(self, writes: int, timeout_s: float) -> float:
        """Waits for that many writes of every lane; returns how long one took, in seconds."""
        return self._load.await_flow(writes, scaled(timeout_s))

    def end_load(self, timeout_s: float, *, ask: bool = True) -> list[dict[str, Any]]:
        """What became of each lane. Asks the writers to stop, or waits until faults stop them."""
        return [dataclasses.asdict(lane) for lane in self._load.end(scaled(timeout_s), ask=ask)]

    # ---- both ----

    def open_things(self) -> int:
        """Threads and descriptors of this process."""
        return sum(len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("task", "fd"))

    def usage(self, *, is_rdma: bool = False) -> dict[str, int]:
        if self.comm.role == "decode":
            self.comm.poll_departed()  # kept, up to a bound, for who asks
        return usage(is_rdma=is_rdma)

    def processor_seconds(self) -> float:
        return time.process_time()

    def unquiesced(self) -> list[list[Any]]:
        """[peer, transport, reason, [[local ids, remote ids], ...]] of what may still land."""
        return [
            [
                u.peer,
                u.transport,
                u.reason,
                [[list(w.local_block_ids), list(w.remote_block_ids)] for w in u.writes],
            ]
            for u in self.comm.unquiesced()
        ]

    def epoch(self) -> int:
        return self.comm.epoch

    def pid(self) -> int:
        return os.getpid()

    def close(self) -> None:
        self.comm.close()

    def discard(self, timeout_s: float) -> None:
        """As RemoteSide's, for one that is about to go out of scope."""
        self.comm.close(timeout_s=timeout_s)
