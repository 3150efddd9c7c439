"""What decode has taken back, and what it has asked its peers to stop."""

from __future__ import annotations

import itertools
import threading
from typing import TypeVar

from rdma_kv import _messages as wire

_Key = TypeVar("_Key")

# Peers that a revocation has sent away, and those that were once known.
_MOST_REMEMBERED = 4096
# Communicators that one process made, at once or one after the other.
_MOST_LIVES = 64


class Question:
    """What every peer was asked, and who has not answered."""

    def __init__(self, sequence: int, waiting: set[bytes]) -> None:
        self.sequence = sequence
        self.waiting = waiting
        self.answered = threading.Event()
        self.settle(b"")

    def settle(self, identity: bytes) -> None:
        """This one has answered, or is gone."""
        self.waiting.discard(identity)
        if not self.waiting:
            self.answered.set()


class Revocations:
    """What is revoked, and the questions under way. Lives on the control thread."""

    def __init__(self) -> None:
        # Sets in the order of coming: the oldest are forgotten.
        self._tags: dict[int, None] = {}
        self._peers: dict[int, None] = {}  # epochs
        self._lives: dict[tuple[str, int], None] = {}  # (name, epoch)
        self._questions: dict[int, Question] = {}
        self._sequence = itertools.count(1)

    def tags(self) -> list[int]:
        """All revoked tags, for a peer that connects."""
        return list(self._tags)

    def epochs_of(self, name: str) -> set[int]:
        """The lives of peers that had this name lately, connected now or not."""
        return {epoch for known, epoch in self._lives if known == name}

    def on_hello(self, name: str, epoch: int) -> None:
        """Remembers who has this name."""
        _remember(self._lives, (name, epoch), _MOST_REMEMBERED)
        of_name = [life for life in self._lives if life[0] == name]
        for life in of_name[:-_MOST_LIVES]:
            del self._lives[life]

    def on_back(self, epoch: int) -> None:
        """The peer has connected by its user's call, and so knows that its grants are gone."""
        self._peers.pop(epoch, None)

    def is_sent_away(self, epoch: int) -> bool:
        """Whether this life of a peer was revoked, and has not connected since."""
        return epoch in self._peers

    def send_away(self, epoch: int) -> None:
        """Its automatic reconnecting is refused from now on."""
        _remember(self._peers, epoch, _MOST_REMEMBERED)

    def ask(self, identities: set[bytes], tag: int, *, lifted: bool) -> Question:
        """Notes a tag as revoked, or not any more; these peers are to be told."""
        if lifted:
            self._tags.pop(tag, None)
        else:
            _remember(self._tags, tag, wire.MOST_REVOKED)
        question = Question(next(self._sequence), identities)
        self._questions[question.sequence] = question
        return question

    def on_revoked(self, identity: bytes, sequence: int) -> None:
        """A peer's answer."""
        if question := self._questions.get(sequence):
            question.settle(identity)

    def on_session_end(self, identity: bytes) -> None:
        """Its links have been ended, so nobody waits for it."""
        for question in self._questions.values():
            question.settle(identity)

    def forget(self, question: Question) -> None:
        """Nobody waits for it any more."""
        self._questions.pop(question.sequence, None)


def _remember(kept: dict[_Key, None], key: _Key, most: int) -> None:
    kept.pop(key, None)
    kept[key] = None
    if len(kept) > most:
        del kept[next(iter(kept))]
