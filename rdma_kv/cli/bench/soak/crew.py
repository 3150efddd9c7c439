"""The decode and prefill processes of a run, and what is done to them.

Everything here happens on one thread, which lives as long as they do.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from rdma_kv.cli.bench.child_process import Child

from . import cache_file, decode, manifest, prefill
from .content import Content
from .geometry import decode_geometry
from .settings import Settings


@dataclass
class Decode:
    """One decode over all of its lives."""

    peer: int
    file: int
    cache: cache_file.CacheFile
    outside: cache_file.Outside
    child: Child | None = None
    port: str = "0"
    life: int = 0
    is_ready: bool = False
    has_stopped: bool = False
    resume_at: float | None = None
    restart_at: float | None = None
    told: set[int] = field(default_factory=set)  # prefills that know of the life to come


@dataclass
class Prefill:
    number: int
    child: Child
    resume_at: float | None = None
    is_calm: bool = False
    has_stopped: bool = False


class Crew:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._content = Content(settings.seed, settings.block_bytes)
        self._plan = manifest.create(settings)
        self.decodes = [self._decode(peer) for peer in range(settings.peers)]
        self.prefills: list[Prefill] = []

    def start_decodes(self) -> None:
        for one in self.decodes:
            self._start(one)

    def start_prefills(self) -> None:
        """Once every decode is ready."""
        peers = [(one.port, cache_file.path_of(one.file)) for one in self.decodes]
        plan = cache_file.path_of(self._plan)
        for number in range(self._settings.prefills):
            child = Child(f"prefill {number}", prefill.run, self._settings, number, plan, peers)
            self.prefills.append(Prefill(number, child))

    def children(self) -> list[Child]:
        decodes = [one.child for one in self.decodes if one.child]
        return decodes + [one.child for one in self.prefills]

    # ---- faults

    def kill(self, one: Decode, restart_after_s: float) -> None:
        """As a crash does it; a new life begins later, on the same port."""
        assert one.child
        one.child.kill()
        one.child, one.is_ready, one.resume_at = None, False, None
        one.restart_at = time.monotonic() + restart_after_s

    def stop(self, one: Decode | Prefill, for_s: float) -> None:
        assert one.child
        one.child.pause()
        one.resume_at = time.monotonic() + for_s

    def resume_due(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        everybody: list[Decode | Prefill] = [*self.decodes, *self.prefills]
        for one in everybody:
            if one.resume_at is not None and (all_of_them or one.resume_at < now):
                one.resume_at = None
                if one.child:
                    one.child.resume()

    def announce_due(self, *, all_of_them: bool = False) -> None:
        """The first half of a restart: every prefill has to know where to look for the bytes."""
        now = time.monotonic()
        for one in self.decodes:
            if one.restart_at is not None and (all_of_them or one.restart_at < now):
                one.restart_at = None
                os.close(one.file)
                one.life += 1
                one.file = cache_file.create(
                    decode_geometry(self._settings, one.peer), self._content
                )
                one.cache = cache_file.CacheFile(one.file, one.cache.geometry)
                one.told = set()
                for prefill_side in self.prefills:
                    prefill_side.child.send(
                        "life", one.peer, one.life, cache_file.path_of(one.file)
                    )

    def on_life_known(self, number: int, peer: int, life: int) -> None:
        """The second half."""
        one = self.decodes[peer]
        if life == one.life:
            one.told.add(number)
            if len(one.told) == len(self.prefills):
                self._start(one)

    def end(self) -> None:
        """Whatever they are doing."""
        for child in self.children():
            child.kill()
        for one in self.decodes:
            os.close(one.file)
        os.close(self._plan)

    # ---- private

    def _decode(self, peer: int) -> Decode:
        geometry = decode_geometry(self._settings, peer)
        file = cache_file.create(geometry, self._content)
        return Decode(
            peer,
            file,
            cache_file.CacheFile(file, geometry),
            cache_file.Outside(self._settings, peer, geometry, self._content),
        )

    def _start(self, one: Decode) -> None:
        one.child = Child(
            f"decode {one.peer}",
            decode.run,
            self._settings,
            one.peer,
            one.port,
            cache_file.path_of(one.file),
            cache_file.path_of(self._plan),
        )
