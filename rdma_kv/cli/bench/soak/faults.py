"""Which fault comes next, and when; the same seed gives the same order."""

from __future__ import annotations

import random
import time

from rdma_kv.cli.bench.ports import listening_ports

from .crew import Crew, Decode
from .settings import Settings
from .strangers import Strangers

_WEIGHTS = {
    "kill a decode": 4,
    "stop a decode": 4,
    "stop a prefill": 2,
    "strangers": 8,
    "revoke a tag": 4,
    "revoke a peer": 2,
}


class Faults:
    def __init__(self, settings: Settings, crew: Crew) -> None:
        self._settings = settings
        self._crew = crew
        self._random = random.Random(f"faults {settings.seed}")
        self._strangers = Strangers(settings.seed)
        self._next_at = time.monotonic() + self._pause_s()

    def inject_due(self) -> str | None:
        """At most one; returns what it was."""
        self._strangers.leave()
        if not self._settings.faults or time.monotonic() < self._next_at:
            return None
        self._next_at = time.monotonic() + self._pause_s()
        kind = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if kind == "stop a prefill":
            prefill = self._random.choice(self._crew.prefills)
            if prefill.resume_at is None:
                self._crew.stop(prefill, self._stop_s())
                return kind
            return None
        decode = self._random.choice(self._crew.decodes)
        return self._at(decode, kind) if decode.is_ready else None

    def calm(self) -> None:
        self._strangers.leave(all_of_them=True)

    def close(self) -> None:
        self._strangers.close()

    def _at(self, decode: Decode, kind: str) -> str | None:
        assert decode.child
        if kind == "kill a decode":
            self._crew.kill(decode, self._random.choice((0.0, self._random.uniform(0, 3))))
        elif kind == "stop a decode":
            if decode.resume_at is not None:
                return None
            self._crew.stop(decode, self._stop_s())
        elif kind == "strangers":
            return self._strangers.visit(listening_ports(decode.child.pid), int(decode.port))
        else:
            slot = self._random.randrange(self._settings.slots)
            decode.child.send(kind.replace(" a ", " "), slot)
        return kind

    def _stop_s(self) -> float:
        """Mostly short; at times longer than a peer is waited for."""
        return self._random.choice((self._random.uniform(0.05, 1.0), self._random.uniform(1, 8)))

    def _pause_s(self) -> float:
        return self._random.expovariate(1 / self._settings.fault_every_s)
