"""Two prefills and a decode side driven at random, and compared with a model after every step.

Preconditions look at what was commanded, never at how things went: the same choices must lead to
the same rules when a history is replayed, however it is timed.
"""

from __future__ import annotations

import sys
from collections import Counter

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from model.decode_rules import DecodeRules
from model.fault_rules import FaultRules
from model.memory import changed_places
from model.orders import LARGE, SMALL
from model.prefill_rules import PrefillRules
from model.stage import Pool, Stage
from rdma_kv import _core
from support.cache import Shape
from support.patience import eventually
from support.wire import Wire


class Machine(PrefillRules, DecodeRules, FaultRules):
    """All of it."""

    @initialize(shape=st.sampled_from([SMALL, LARGE]), connected=st.sampled_from([2, 2, 2, 1, 0]))
    def begin(self, shape: Shape, connected: int) -> None:
        self.shape = shape
        self.stage = Stage(self.wire, self.pool, shape)
        self._start_decode("0")
        self.senders = [self._new_sender() for _ in range(2)]
        for which in range(connected):
            self._connect(which)

    @invariant()
    def time_passes(self) -> None:
        """Most rules are of use only with a decode that is there."""
        self.steps_left -= 1
        if self.lives and self.steps_left < 0:
            if self.is_stopped:
                self.continue_decode(is_long=False)
            elif not self.is_up:
                self.restart_decode()

    @invariant()
    def memory_is_as_the_model_says(self) -> None:
        if not self.lives or not self.is_up or self.is_stopped:
            return
        self.life.memory.check(self.life.side.block_digests(), self.life.read)

    def teardown(self) -> None:
        going = sys.exc_info()[1]  # Hypothesis has others of its own, to end a history early
        failure = going if isinstance(going, Exception) else None
        try:
            if failure is None:
                self._finish()
        except Exception as error:
            failure = error
            raise
        finally:
            _core.loopback_faults().clear()
            if failure is not None and self.first_failure is None:
                type(self).first_failure = (failure, self.journal)
            if self.lives:
                self.stage.end(self.lives, in_order=failure is None)

    def _finish(self) -> None:
        """Everything comes to its end, and then nothing moves, and no notice is missing."""
        if not self.lives:
            return
        if self.is_stopped:
            self.continue_decode(is_long=False)
        self._settle_all()
        for sender in self.senders:
            self._see_lingering_end(sender)
            assert sender.side.block_digests() == sender.image.digests, "prefill's blocks changed"
        if self.is_up:
            self.memory_is_as_the_model_says()
            self._take_notices()
            eventually(
                self._has_all_notices,
                self.notices_within_s,
                f"notices: {self.life.notices.missing()}",
            )
            assert self.life.side.unquiesced() == []
        for life in self.lives:
            if life.left_as is not None:
                changes = changed_places(life.left_as, life.side.block_digests())
                assert not changes, f"memory of a closed decode changed: {changes[:8]}"


def machine_on(wire: Wire, pool: Pool, base: type[Machine] = Machine) -> type[Machine]:
    own = {"wire": wire, "pool": pool, "first_failure": None, "outcomes": Counter()}
    return type("Machine", (base,), own)


def play(machine: type[Machine], number: int, profile: settings) -> None:
    """Histories from this seed; raises what went wrong first, and prints how it came to that.

    Hypothesis repeats a failed history before it reports it. That one may end otherwise, as calls
    may: what it says then is printed as well, but it is not what happened.
    """
    print(f"RDMA_KV_MODEL_SEED={number}", flush=True)
    try:
        run_state_machine_as_test(seed(number)(machine), settings=profile)
    except Exception as report:
        if machine.first_failure is None:
            raise
        error, journal = machine.first_failure
        print("\n".join(["the end of the history that failed:", *journal[-60:]]))
        print(f"Hypothesis says: {report!r}", *getattr(report, "__notes__", []), sep="\n")
        raise error from None
