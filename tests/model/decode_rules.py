"""What decode's user does, and what happens to its process."""

from __future__ import annotations

import contextlib
import os

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from model.history import History
from model.orders import PATIENT_S, TAGS, away_for, mostly, senders
from model.profile import IS_SOAK
from model.sender import Link
from rdma_kv import NotQuiesced, PeerLost, TransferError, TransferRevoked
from support.patience import scaled

MOST_KILLS = 3 if IS_SOAK else 1
# How decode names every prefill of this process.
OUR_NAME = f"127.0.0.1 (pid {os.getpid()})"


class DecodeRules(History):
    """Taking back, closing, and the faults of a process."""

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule()
    def poll_notices(self) -> None:
        self._take_notices()

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(tag=st.sampled_from(TAGS), is_allowed_again=mostly)
    def revoke_tag(self, tag: int, is_allowed_again: bool) -> None:
        for write in self._all_under_way():
            if write.tag == tag:
                write.errors.add(TransferRevoked)
                write.is_notice_void = True
        self.life.side.revoke(tag)
        at_return = self.life.side.block_digests()
        self._tell(f"revoke_tag({tag})")
        self.revoked.add(tag)
        self.ever_revoked.add(tag)
        self.life.notices.forget(tag=tag)
        for sender in self.senders:
            for write in [write for write in sender.under_way if write.tag == tag]:
                self._settle(sender, write)
        self._check_unchanged_since(at_return)
        if is_allowed_again:
            self.allow(tag)

    @precondition(lambda self: self.is_up and not self.is_stopped and self.revoked)
    @rule(tag=st.sampled_from(TAGS))
    def allow(self, tag: int) -> None:
        self.life.side.allow(tag)
        self.revoked.discard(tag)
        self._tell(f"allow({tag})")

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(which=senders, by_name=st.booleans(), is_back=mostly)
    def revoke_peer(self, which: int, by_name: bool, is_back: bool) -> None:
        """One life of a peer; by its name, all of this process, if one has ever connected."""
        sender = self.senders[which]
        meant = [s for i, s in enumerate(self.senders) if by_name or i == which]
        if by_name and not all(s.link in (Link.GOOD, Link.NONE) for s in meant):
            by_name, meant = False, [sender]  # whom decode knows by name is open then
        if by_name:
            meant = [s for s in meant if s.link is Link.GOOD and s.side.is_connected(self.address)]
        for each in meant:
            each.shake(Link.DOOMED, PeerLost)
            for write in each.under_way:
                write.is_notice_void = True
        if not by_name:
            self.life.side.revoke_life(OUR_NAME, sender.epoch)
        elif meant:
            self.life.side.revoke(OUR_NAME)
        at_return = self.life.side.block_digests()
        self._tell(f"revoke_peer({which}, {by_name}): {[s.link.name for s in self.senders]}")
        if by_name and meant:
            self.life.notices.forget()  # those of senders that have been closed, too
        for each in meant:
            each.is_sent_away = True
            self.life.notices.forget(epoch=each.epoch)
            for write in list(each.under_way):
                self._settle(each, write)
        self._check_unchanged_since(at_return)
        self._connect_if(is_back, which)

    @precondition(lambda self: self.is_up and not self.is_one_process and self.kills < MOST_KILLS)
    @rule(steps=away_for)
    def kill_decode(self, steps: int) -> None:
        self.kills, self.steps_left = self.kills + 1, steps
        self.stage.kill()
        for life in self.lives:
            life.left_as = None  # it was memory of that process
        self._tell("kill_decode")
        self._gone()

    @precondition(lambda self: self.is_up and not self.is_stopped)
    @rule(steps=away_for)
    def close_decode(self, steps: int) -> None:
        self.steps_left = steps
        self.life.side.close()
        self.life.left_as = self.life.side.block_digests()
        self._tell("close_decode")
        self._gone()

    @precondition(lambda self: not self.is_up)
    @rule()
    def restart_decode(self) -> None:
        """On its port: another process, or, after an orderly end, another life in the same one."""
        self._start_decode(self.address[1])
        self._tell("restart_decode")

    @precondition(lambda self: self.is_up and not self.is_stopped and not self.is_one_process)
    @rule(steps=away_for)
    def stop_decode(self, steps: int) -> None:
        self.steps_left = steps
        self.stage.stop()
        self.is_stopped = True
        self._tell("stop_decode")
        for sender in self.senders:
            sender.shake(Link.SHAKEN, PeerLost, NotQuiesced)

    @precondition(lambda self: self.is_stopped)
    @rule(is_long=st.just(False) if not IS_SOAK else st.sampled_from([False, False, True]))
    def continue_decode(self, is_long: bool) -> None:
        """At once, or, in a soak, only when all that waits for it has been given up."""
        for write in self._all_under_way() if is_long else []:
            assert write.transfer is not None
            with contextlib.suppress(TransferError):
                write.transfer.wait(scaled(PATIENT_S))
        self.stage.resume()
        self.is_stopped = False
        self._tell(f"continue_decode(is_long={is_long})")
        for sender in self.senders:
            sender.shake(Link.SHAKEN, PeerLost, NotQuiesced)
            self._see_lingering_end(sender)
