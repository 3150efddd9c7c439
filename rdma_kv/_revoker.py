"""Decode takes back what it granted: to writes with a tag, or to a whole peer.

A tag is revoked by asking every peer to stop its writes with it. Who does not answer soon loses its
links, which this side can end alone: either way nothing lands any more when the call returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rdma_kv import _core
from rdma_kv import _messages as wire
from rdma_kv._control import ControlLoop
from rdma_kv._errors import NotQuiesced
from rdma_kv._revocation import Question
from rdma_kv._sessions import Session, Sessions

# A healthy peer stops a write within milliseconds, a queue of them in tens.
ANSWER_WITHIN_S = 1.0


class Revoker:
    """The calls, on the user's thread; what touches sessions runs on the control thread."""

    def __init__(self, loop: ControlLoop, engine: _core.Engine, sessions: Sessions) -> None:
        self._loop = loop
        self._engine = engine
        self._sessions = sessions
        self._revocations = sessions.revocations

    def revoke_tag(self, tag: int, only: str | None, timeout_s: float) -> None:
        """Returns once no write with this tag (of the peer of that name only) can land.

        Raises:
            NotQuiesced: A peer neither answered nor could be stopped from here.
        """
        call = f"revoke({tag})"
        deadline = time.monotonic() + timeout_s
        self._engine.revoke_notices(tag)
        question = self._ask(call, tag, deadline, lifted=False, only=only)
        silent: list[Session] = []

        def end_silent() -> None:
            self._revocations.forget(question)
            for session in self._sessions.all():
                if session.identity in question.waiting:
                    silent.append(session)
                    self._sessions.end(session, f"it did not stop its writes with tag {tag}")

        question.answered.wait(min(ANSWER_WITHIN_S, timeout_s / 2))
        self._run(call, end_silent, deadline)
        for session in silent:
            self._await_quiesced(call, session.name, session.epoch, deadline)
        # And links that had ended before, over which a write with this tag may still come.
        for link_id, _, name, _, _ in self._engine.unquiesced_links():
            if only in (None, name):
                left_s = max(0.0, deadline - time.monotonic())
                self._confirm(call, name, self._engine.end_link(link_id, "", left_s))
        # A notice that has come and was not looked at must not outlive allow().
        self._engine.settle_notices()

    def allow_tag(self, tag: int, timeout_s: float) -> None:
        """Takes writes with this tag again. A peer that does not answer refuses them for longer."""
        self._engine.allow_notices(tag)
        deadline = time.monotonic() + timeout_s
        question = self._ask(f"allow({tag})", tag, deadline, lifted=True)
        question.answered.wait(min(ANSWER_WITHIN_S, timeout_s))
        self._loop.post(lambda: self._revocations.forget(question))

    def revoke_peer(self, name: str, epoch: int | None, timeout_s: float) -> None:
        """Returns once nothing of this peer can land.

        Raises:
            ValueError: No peer of that name was ever here.
            NotQuiesced: It could not be stopped from here.
        """
        call = f"revoke({name!r})"
        deadline = time.monotonic() + timeout_s
        unquiesced = {(n, e) for _, _, n, e, _ in self._engine.unquiesced_links()}
        epochs = {e for n, e in unquiesced if n == name} if epoch is None else {epoch}
        strangers: list[str] = []

        def end() -> None:
            if epoch is None:  # also who is not connected at this moment, and may come back
                epochs.update(self._revocations.epochs_of(name))
            for session in self._sessions.all():
                is_meant = session.name == name if epoch is None else session.epoch == epoch
                if is_meant:
                    epochs.add(session.epoch)
                    self._sessions.end(session, "this side revoked all that it had granted to it")
            if not epochs:
                strangers.append(name)
            for each in epochs:
                self._revocations.send_away(each)

        self._run(call, end, deadline)
        if strangers:
            connected = ", ".join(self._sessions.names()) or "nobody"
            raise ValueError(f"no peer is called {name!r}; connected: {connected}")
        for each in epochs:
            self._await_quiesced(call, name, each, deadline)
            self._engine.discard_notices_of_epoch(each)

    # ---- private

    def _ask(
        self, call: str, tag: int, deadline: float, *, lifted: bool, only: str | None = None
    ) -> Question:
        asked: list[Question] = []

        def ask() -> None:
            epoch = self._engine.epoch
            sessions = [s for s in self._sessions.all() if only in (None, s.name)]
            question = self._revocations.ask({s.identity for s in sessions}, tag, lifted=lifted)
            sequence = question.sequence
            message = wire.Revoke(epoch=epoch, sequence=sequence, tag=tag, lifted=lifted)
            for session in sessions:
                self._sessions.send(session, message)
            asked.append(question)

        self._run(call, ask, deadline)
        return asked[0]

    def _run(self, call: str, task: Callable[[], None], deadline: float) -> None:
        if not self._loop.run(task, max(0.1, deadline - time.monotonic())):
            raise NotQuiesced(
                f"{call}: the control thread did not take it up in time; has this communicator "
                "been closed, or does the process have no processor time? Nothing is known about "
                "the blocks: do not reuse them"
            )

    def _await_quiesced(self, call: str, name: str, epoch: int, deadline: float) -> None:
        left_s = max(0.0, deadline - time.monotonic())
        self._confirm(call, name, self._engine.end_epoch(epoch, "this side revoked it", left_s))

    def _confirm(self, call: str, name: str, is_quiesced: bool) -> None:
        if not is_quiesced:
            raise NotQuiesced(
                f"{call}: {name} did not confirm in time that it has stopped writing into this "
                "process; is it stopped (SIGSTOP, a debugger)? Do not reuse blocks that were "
                "granted to it while unquiesced() lists it; ending that process settles it"
            )
