"""However a process ends, with transfers under way: soon, quietly, and its peer goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ending_process import EVERY, SHAPE, TURNED
from support.flat import shared_files
from support.outcome import ending as outcome
from support.patience import eventually, scaled
from support.peer import PeerProcess
from support.wire import Wire, image_of

# A write under way has a second at exit, and a peer that does not answer is waited for three more.
SOON_S = 10.0

STATUS = {
    "return": 0,
    "sys_exit": 3,
    "os_exit": 4,
    "raise": 1,
    "SIGINT": -signal.SIGINT,
    "SIGTERM": -signal.SIGTERM,
    "SIGTERM_handled": 5,
    "fork_return": 0,
    "fork_sys_exit": 0,
    "fork_os_exit": 0,
    "fork_raise": 0,
}
CHILD_STATUS = {"fork_return": 0, "fork_sys_exit": 3, "fork_os_exit": 4, "fork_raise": 1}
LAST_WORDS = {"raise": "RuntimeError: the end", "SIGINT": "KeyboardInterrupt"}

# Every way of waiting, every ending, and of their pairs those that differ.
PAIRS = [
    ("sync", "SIGINT"),
    ("sync", "SIGTERM_handled"),
    ("sync", "raise"),
    ("async", "return"),
    ("async", "sys_exit"),
    ("async", "os_exit"),
    ("async", "SIGINT"),
    ("await", "SIGINT"),
    ("await", "SIGTERM_handled"),
    ("await", "raise"),
    ("threads", "return"),
    ("threads", "SIGINT"),
    ("threads", "SIGTERM"),
    ("threads", "fork_return"),
    ("threads", "fork_raise"),
    ("async", "fork_sys_exit"),
    ("async", "fork_os_exit"),
]


class EndingProcess:
    """A process of support.ending_process, alone in its session and its folder of scratch files."""

    def __init__(self, scratch: Path, wire: Wire, role: str, pair: tuple[str, str], *more: str):
        self._scratch = scratch
        self._ending = pair[1]
        self._files = shared_files()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHE_")}
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        environment["TMPDIR"] = str(scratch)
        environment["PYTHONFAULTHANDLER"] = "1"
        arguments = [
            role,
            *pair,
            json.dumps(wire.side("prefill" if role == "both" else role)),
            *more,
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.ending_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout
        self.said = self._process.stdout.readline().split()

    def end(self) -> None:
        """Sends the signal, if it is to be one; else the word to end."""
        if self._ending.startswith("SIG"):
            self._process.send_signal(signal.Signals[self._ending.removesuffix("_handled")])
        else:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.stdin = None

    def check(self) -> None:
        """That it ended soon, as it should, and left nothing."""
        started = time.monotonic()
        try:
            out, errors = self._process.communicate(timeout=scaled(SOON_S))
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            raise AssertionError(f"it hangs: {self._process.communicate()[1]}") from None
        assert self.said, errors
        assert self._process.returncode == STATUS[self._ending], errors
        if self._ending in CHILD_STATUS:
            assert out.split() == ["child", str(CHILD_STATUS[self._ending])], errors
        self._check_words(errors)
        assert time.monotonic() - started < scaled(SOON_S)
        assert processes_of(self._process.pid) == []
        assert list(self._scratch.iterdir()) == []
        assert shared_files() <= self._files

    def _check_words(self, errors: str) -> None:
        for word in ("Fatal", "Exception ignored", "terminate called", "never retrieved"):
            assert word not in errors, errors
        last_words = LAST_WORDS.get(self._ending.removeprefix("fork_"))
        if last_words:
            assert errors.rstrip().endswith(last_words), errors
        else:
            assert "Traceback" not in errors, errors

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def processes_of(session: int) -> list[str]:
    """Those of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        after_name = stat.rpartition(")")[2].split()
        if int(after_name[3]) == session:
            found.append(stat)
    return found


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[type[EndingProcess]]:
    made = []

    def launch(*arguments) -> EndingProcess:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        made.append(EndingProcess(scratch, *arguments))
        return made[-1]

    yield launch
    for process in made:
        process.kill()


def name(pair: tuple[str, str]) -> str:
    return "-".join(pair)


@pytest.mark.two_processes
@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_prefill_that_ends_is_noticed_and_the_next_one_served(wire: Wire, launch, pair):
    decode = wire.decode(SHAPE)
    process = launch(wire, "prefill", pair, *decode.address)
    decode.received(1, 20)

    process.end()

    process.check()
    eventually(lambda: decode.peer_names() == [], 10, "decode has noticed")
    successor = wire.prefill(SHAPE)
    wanted = image_of(decode)
    wanted.take(successor.cache, EVERY, TURNED, range(SHAPE.layers))
    assert successor.connect(decode.address)
    successor.write(decode.address, EVERY, TURNED, tag=7)
    decode.received(7, 20)
    assert decode.digests() == wanted.digests()


@pytest.mark.two_processes
@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_decode_that_ends_fails_the_writes_to_it_and_no_other(wire: Wire, launch, pair):
    prefill, other = wire.pair(SHAPE)
    process = launch(wire, "decode", pair)
    address = tuple(process.said)
    assert prefill.connect(address)
    transfers = [
        prefill.comm.write_cache_async(*address, EVERY, TURNED, tag=1, timeout_s=scaled(20))
        for _ in range(100)
    ]

    process.end()

    process.check()
    outcome(transfers[-1])
    # All at once, in no order that is promised.
    eventually(lambda: all(transfer.done() for transfer in transfers), 1, "the others end with it")
    eventually(lambda: not prefill.is_connected(address), 10, "prefill has noticed")
    prefill.write(other.address, EVERY, TURNED, tag=7)
    other.received(7, 20)


@pytest.mark.two_processes
@pytest.mark.parametrize("pair", [("sync", "SIGINT"), ("threads", "sys_exit")], ids=name)
def test_a_prefill_ends_although_its_peer_is_stopped(wire: Wire, launch, own_process, pair):
    decode = wire.decode(SHAPE, process=own_process)
    process = launch(wire, "prefill", pair, *decode.address)
    own_process.pause()

    process.end()

    process.check()


@pytest.mark.parametrize("pair", [p for p in PAIRS if "fork" not in p[1]], ids=name)
def test_a_process_ends_although_its_own_writes_never_do(launch, pair, tmp_path):
    """Both sides are in it, over loopback, which holds every write back."""
    wire = Wire("loopback", PeerProcess)
    process = launch(wire, "both", pair)

    process.end()

    process.check()


# Its threads wake up, as they do ten times a second, while the interpreter is being taken apart.
WAITING_WHEN_THE_INTERPRETER_EXITS = """
import threading
import time
from rdma_kv import _core
from support.cache import Shape
from support.side import Side

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)

sides = [Side(role, Shape(), {"KVCACHE_TRANSPORT": "loopback"}) for role in ("decode", "prefill")]
decode, prefill = (side.comm for side in sides)
_core.loopback_faults().delay(600.0)
prefill.connect("127.0.0.1", decode.port)
for comm in (decode, prefill):
    comm._finalizer.atexit = False  # or it would end the calls before
calls = [
    lambda: prefill.write_cache("127.0.0.1", decode.port, [1], [2], timeout_s=600),
    lambda: prefill.write_cache_async("127.0.0.1", decode.port, [1], [2], timeout_s=600).wait(),
    lambda: decode.received(1, 600),
]
for call in calls * 4:
    threading.Thread(target=call, daemon=True).start()
slow = Slow()
time.sleep(0.3)
"""


def test_daemon_threads_in_the_core_do_not_abort_an_interpreter_that_exits():
    """They never get the GIL again, and must not be unwound."""
    done = subprocess.run(
        [sys.executable, "-c", WAITING_WHEN_THE_INTERPRETER_EXITS],
        capture_output=True,
        text=True,
        check=False,
        timeout=scaled(20),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )

    assert done.returncode == 0, done.stderr
    assert "terminate called" not in done.stderr


def test_the_words_that_must_not_be_said_are_looked_for():
    """A crash of the interpreter is told from a quiet end."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", "import os; os.abort()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT
    assert re.search("Fatal Python error", done.stderr)
