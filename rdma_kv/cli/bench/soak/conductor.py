"""Runs it all: one loop over the children's pipes, the faults that are due, and the checkpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from .crew import Crew, Decode, Prefill
from .faults import Faults
from .outcome import Outcome
from .resources import Checkpoint, Resources, dev_shm_entries, memory_regions
from .settings import Settings

_READY_WITHIN_S = 180.0  # an emulated machine is slow to start Python
_POLL_S = 0.05
# After the last fault, before everybody is asked to be well.
_RECOVER_S = 0.5


class StuckError(Exception):
    """Somebody does not do what he must; the text is for the user."""


class Conductor:
    """One run. `show` is called a few times a second with what is known so far."""

    def __init__(self, settings: Settings, show: Callable[[Outcome], None]) -> None:
        self.outcome = Outcome(settings)
        self._settings = settings
        self._show = show
        self._crew = Crew(settings)
        self._faults = Faults(settings, self._crew)
        self._calm_decodes: set[int] = set()
        self._begun = time.monotonic()

    def run(self) -> Outcome:
        """Ends early, and in order, on Ctrl-C and on the first failure that stops the writers."""
        try:
            self._start()
            try:
                self._soak()
            except KeyboardInterrupt:
                self.outcome.was_interrupted = True
            self._checkpoint()
            self._stop()
        except StuckError as stuck:
            self.outcome.tally.fail(str(stuck))
            self._show_stacks()
        except KeyboardInterrupt:
            self.outcome.was_interrupted = True
        finally:
            self.outcome.seconds = time.monotonic() - self._begun
            self._faults.close()
            self._crew.end()
        return self.outcome

    # ---- phases

    def _start(self) -> None:
        self._crew.start_decodes()
        self._until(lambda: all(one.is_ready for one in self._crew.decodes), _READY_WITHIN_S)
        self._crew.start_prefills()
        self._begun = time.monotonic()
        self._take_checkpoint()
        self._begun += self.outcome.checkpoints[0].at_s
        self.outcome.checkpoints[0] = replace(self.outcome.checkpoints[0], at_s=0.0)
        for prefill in self._crew.prefills:
            prefill.child.send("go")

    def _soak(self) -> None:
        end = self._begun + self._settings.seconds
        next_checkpoint = time.monotonic() + self._settings.checkpoint_every_s
        while time.monotonic() < end:
            self._turn()
            if fault := self._faults.inject_due():
                self.outcome.faults[fault] += 1
            self._crew.resume_due()
            self._crew.announce_due()
            if time.monotonic() > next_checkpoint and end - time.monotonic() > 5:
                self._checkpoint()
                for prefill in self._crew.prefills:
                    prefill.child.send("go")
                next_checkpoint = time.monotonic() + self._settings.checkpoint_every_s

    def _checkpoint(self) -> None:
        """No more faults; everybody well; everything looked at."""
        self._faults.calm()
        self._crew.resume_due(all_of_them=True)
        self._crew.announce_due(all_of_them=True)
        self._until(lambda: all(one.is_ready for one in self._crew.decodes), _READY_WITHIN_S)
        recovered_at = time.monotonic() + _RECOVER_S
        self._until(lambda: time.monotonic() > recovered_at, 10.0)
        for prefill in self._crew.prefills:
            prefill.is_calm = False
            prefill.child.send("calm")
        self._take_checkpoint()

    def _take_checkpoint(self) -> None:
        calm_within_s = 4 * self._settings.hang_s
        self._until(lambda: all(one.is_calm for one in self._crew.prefills), calm_within_s)
        self._calm_decodes.clear()
        for decode in self._crew.decodes:
            assert decode.child
            decode.child.send("calm")
        self._until(lambda: len(self._calm_decodes) == self._settings.peers, 30.0)
        for decode in self._crew.decodes:
            self.outcome.tally.bytes_verified += decode.outside.bytes
            if problem := decode.outside.problem(decode.cache):
                self.outcome.tally.fail(f"decode {decode.peer}, life {decode.life}: {problem}")
        self._count_resources()

    def _count_resources(self) -> None:
        prefills = [Resources.of(one.child.pid) for one in self._crew.prefills]
        decodes = [Resources.of(one.child.pid) for one in self._crew.decodes if one.child]
        self.outcome.checkpoints.append(
            Checkpoint(
                round(time.monotonic() - self._begun, 1),
                sum(r.fds for r in prefills),
                sum(r.threads for r in prefills),
                sum(r.anon_kib for r in prefills),
                sum(r.fds for r in decodes),
                sum(r.threads for r in decodes),
                sum(r.anon_kib for r in decodes),
                memory_regions(),
                dev_shm_entries(),
            )
        )

    def _stop(self) -> None:
        for child in self._crew.children():
            child.send("stop")
        self._until(lambda: all(one.has_stopped for one in self._crew.prefills), 60.0)
        for child in self._crew.children():
            child.join(10.0)
            if child.is_alive():
                raise StuckError(f"{child.name} did not end within 10 s, with nothing left to do")
        self.outcome.cpu_s = _children_cpu_s()

    # ---- the loop

    def _until(self, is_done: Callable[[], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not is_done():
            if time.monotonic() > deadline:
                raise StuckError(f"the processes did not get ready within {within_s:g} s")
            self._turn()

    def _turn(self) -> None:
        """Takes what the children say, for a moment."""
        senders: dict[Any, Decode | Prefill] = {
            one.child.pipe: one for one in self._crew.decodes if one.child and not one.has_stopped
        }
        senders |= {one.child.pipe: one for one in self._crew.prefills if not one.has_stopped}
        for pipe in wait(list(senders), timeout=_POLL_S):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except (EOFError, ConnectionResetError):
                child = senders[pipe].child
                assert child
                child.join(5.0)
                status = child.exit_status
                raise StuckError(f"{child.name} ended by itself, with status {status}") from None
            self._on_message(senders[pipe], *message)
        self.outcome.seconds = time.monotonic() - self._begun
        self._show(self.outcome)

    def _on_message(self, sender: Any, what: str, *arguments: Any) -> None:
        tally = self.outcome.tally
        if what == "tally":
            tally.add(arguments[0])
        elif what == "verified":
            tally.bytes_verified += arguments[0]
        elif what == "failure":
            tally.fail(arguments[0])
        elif what == "ready":
            sender.port, sender.is_ready = str(arguments[0]), True
        elif what == "life":
            self._crew.on_life_known(sender.number, *arguments)
        elif what == "calm" and sender in self._crew.prefills:
            sender.is_calm = True
        elif what == "calm":
            self._calm_decodes.add(sender.peer)
        elif what == "done":
            tally.counts[arguments[0]] += 1
        elif what == "error":
            tally.add_error(*arguments)
        elif what == "stopped":
            sender.has_stopped = True
        elif what == "hung":
            raise StuckError(f"{sender.child.name}: {arguments[0]}")

    def _show_stacks(self) -> None:
        for child in self._crew.children():
            child.resume()
            child.show_stacks()
            time.sleep(0.3)  # or they would write into each other's lines


def _children_cpu_s() -> float:
    used = os.times()
    return used.children_user + used.children_system
