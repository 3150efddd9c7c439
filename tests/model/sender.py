"""What the model knows of a prefill side, and of each of its writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from model.memory import Image
from rdma_kv import Transfer
from support.side import Side

Kinds = set[type[Exception]]


class Link(Enum):
    """What is known of a prefill's link to decode."""

    NONE = "not connected"
    GOOD = "up: a write must succeed"
    SHAKEN = "may have broken"
    DOOMED = "broken, whether prefill has seen it or not"
    DOWN = "seen to be broken: the next write connects by itself"


@dataclass
class Write:
    """One call of write_cache, until it has ended for certain."""

    number: int
    src: list[int]
    dst: list[int]
    layers: range
    tag: int
    epoch: int  # of its prefill
    faults: int  # that prefill's link had known when it began
    may_succeed: bool
    errors: Kinds  # that it may end with, as far as things have gone
    life: int  # of decode whose memory it may change
    is_notice_void: bool = False  # decode has revoked it
    transfer: Transfer | None = None

    @property
    def is_empty(self) -> bool:
        return not self.dst and self.tag == 0


@dataclass
class Sender:
    """A prefill side."""

    side: Side
    epoch: int
    image: Image
    link: Link = Link.NONE
    faults: int = 0  # that its link has met
    is_sent_away: bool | None = False  # revoked as a peer, and not connected since; None: unknown
    under_way: list[Write] = field(default_factory=list)
    lingering: list[Write] = field(default_factory=list)  # NotQuiesced, and still listed

    def shake(self, worse: Link, *errors: type[Exception]) -> None:
        """A fault that this link may have met, and what its writes may end with then."""
        self.faults += 1
        for write in self.under_way:
            write.errors |= set(errors)
        if self.link in (Link.GOOD, Link.SHAKEN):
            self.link = worse

    def is_reading(self) -> bool:
        return bool(self.under_way or self.lingering)
