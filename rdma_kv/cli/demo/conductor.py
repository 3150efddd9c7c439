"""Runs the roles as child processes, and never waits for one that cannot answer any more."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from rdma_kv.cli.local import HOST, local_environment

from .events import Emit, Fields
from .settings import DemoError, Settings

STOP_S = 3.0  # for a child to end when asked to, before it is killed
ALSO_FAILED_S = 1.5  # one side's failure breaks the other's link: hear both before judging


def model_environment() -> dict[str, str]:
    """One compute thread for each process, as two share two cores; and no look at the network."""
    return {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # the same sums, run after run
    }


def child_environment() -> dict[str, str]:
    return {
        **local_environment(),
        **model_environment(),
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class Message:
    """Something that a child said, or that it has ended (`event` is "ended")."""

    role: str
    event: str
    fields: Fields


class Child:
    """One role in a process and session of its own: the terminal's Ctrl-C reaches us alone."""

    def __init__(self, role: str, settings: Settings, inbox: queue.Queue[Message]) -> None:
        self.role = role
        self.last_line = ""  # of its standard error; all of it is shown as it comes
        self._inbox = inbox
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rdma_kv.cli.demo.child", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
            text=True,
            errors="replace",
        )
        assert self._process.stdout
        assert self._process.stderr
        errors = threading.Thread(target=self._keep, args=(self._process.stderr,), daemon=True)
        errors.start()
        threading.Thread(
            target=self._listen, args=(self._process.stdout, errors), daemon=True
        ).start()
        self.tell(settings.to_json())

    def tell(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: its own message says why

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _keep(self, stream: IO[str]) -> None:
        for line in stream:
            self.last_line = line.rstrip() or self.last_line
            self._inbox.put(Message(self.role, "said", {"text": line.rstrip()}))

    def _listen(self, stream: IO[str], errors: threading.Thread) -> None:
        for line in stream:
            try:
                fields = json.loads(line)
                event = fields.pop("event")
            except (ValueError, KeyError, AttributeError):
                event, fields = "said", {"text": line.rstrip()}
            self._inbox.put(Message(self.role, event, fields))
        status = self._process.wait()
        errors.join(STOP_S)
        self._inbox.put(Message(self.role, "ended", {"status": status}))


class Conductor:
    """Collects what the children say until each has given its result."""

    def __init__(self, settings: Settings, show: Emit) -> None:
        self._settings = settings
        self._show = show
        self._inbox: queue.Queue[Message] = queue.Queue()
        self._children: dict[str, Child] = {}
        self._failures: dict[str, str] = {}

    @contextmanager
    def children(self, *roles: str) -> Iterator[None]:
        for role in roles:
            self._children[role] = Child(role, self._settings, self._inbox)
        try:
            yield
        finally:
            for role in roles:
                self._children.pop(role).stop()

    def results(self) -> dict[str, Fields]:
        """Each child's result. Raises DemoError when one fails, or none says anything for long."""
        results: dict[str, Fields] = {}
        while len(results) < len(self._children):
            message = self._next()
            if message.event == "listening":
                address = json.dumps([HOST, message.fields["port"]])
                self._children["prefill"].tell(address)
            elif message.event == "result":
                results[message.role] = message.fields
            self._show(f"{message.role} {message.event}", message.fields)
            self._note_failure(message, has_result=message.role in results)
        return results

    def _next(self) -> Message:
        # Longer than the children's own deadlines, whose messages say more than ours.
        patience_s = self._settings.timeout_s + 10
        if self._failures:
            patience_s = ALSO_FAILED_S
        try:
            return self._inbox.get(timeout=patience_s)
        except queue.Empty:
            if self._failures:
                raise self._failure() from None
            roles = " and ".join(self._children)
            raise DemoError(f"no word from {roles} for {patience_s:g} s: ended them") from None

    def _note_failure(self, message: Message, has_result: bool) -> None:
        role = message.role
        if message.event == "failed":
            self._failures[role] = f"failed: {message.fields['text']}"
        elif message.event == "ended" and not has_result and role not in self._failures:
            status = message.fields["status"]
            last = self._children[role].last_line
            self._failures[role] = f"ended with status {status} and no result" + (
                f"; its last words: {last}" if last else ""
            )
        if len(self._failures) == len(self._children):
            raise self._failure()

    def _failure(self) -> DemoError:
        """All failures; sides that fail alike (a setting, say) are named together."""
        alike: dict[str, list[str]] = {}
        for role, text in self._failures.items():
            alike.setdefault(text, []).append(role)
        return DemoError("\n".join(f"{' and '.join(who)} {text}" for text, who in alike.items()))


def run_locally(settings: Settings, show: Emit) -> dict[str, Fields]:
    """Prefill and decode side by side, then the reference alone (a replay needs none)."""
    results = _run(("decode", "prefill"), settings, show)
    if not settings.replay:
        results |= _run(("reference",), settings, show)
    return results


def _run(roles: tuple[str, ...], settings: Settings, show: Emit) -> dict[str, Fields]:
    conductor = Conductor(settings, show)
    with conductor.children(*roles):
        return conductor.results()
