"""A made-up NIC and made-up GPUs: FAKES of libibverbs and libcuda that write down their calls.

What is shown with them is what we ask of the two libraries, never that a NIC or a GPU obeys.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.patience import scaled

TESTS = Path(__file__).parent.parent
FAKES = TESTS / "fake_verbs"
DRIVER = TESTS.parent / "src" / "cuda" / "driver.cc"
COMPILE = ("g++", "-std=c++20", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{FAKES}")
NAMES = {"verbs": "libibverbs.so.1", "cuda": "libcuda.so.1"}


@dataclass
class Machine:
    """The libraries of one process, and their knobs: see the heads of fake_lib*.cc."""

    folder: Path
    libraries: list[Path]
    knobs: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, **arguments: Any) -> Any:
        """What a script of tests/fake_verbs/scripts prints, in a process on this machine."""
        environment = {
            **{name: v for name, v in os.environ.items() if not name.startswith("KVCACHE_")},
            "LD_LIBRARY_PATH": ":".join(map(str, self.libraries)),
            "FAKE_CALLS": str(self._log),
            **self.knobs,
        }
        done = subprocess.run(
            [sys.executable, FAKES / "scripts" / script, json.dumps(arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    @property
    def _log(self) -> Path:
        return self.folder / "calls.jsonl"

    def calls(self, *names: str) -> list[dict[str, int]]:
        """Those with these names, in order, without their names when there is one."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        calls = [call for call in map(json.loads, lines) if call["call"] in names]
        if len(names) == 1:
            for call in calls:
                del call["call"]
        return calls

    def count(self, name: str) -> int:
        return len(self.calls(name))


def build(folder: Path) -> dict[str, Path]:
    """Folders with one library each: "verbs", "old verbs", "cuda", "old cuda", "broken cuda"."""
    cuda = folder / "fake_libcuda.cc"
    cuda.write_text((FAKES / cuda.name).read_text() + _stubs())
    sources = {"verbs": FAKES / "fake_libibverbs.cc", "cuda": cuda}
    out = {}
    for name, source in sources.items():
        for age, flags in ("", []), ("old ", ["-DOLD"]):
            place = out[age + name] = folder / f"{age}{name}".replace(" ", "_")
            place.mkdir()
            subprocess.run([*COMPILE, *flags, source, "-o", place / NAMES[name]], check=True)
    broken = out["broken cuda"] = folder / "broken_cuda"
    broken.mkdir()
    (broken / NAMES["cuda"]).write_text("no library")
    return out


def _stubs() -> str:
    """What the core looks for in libcuda and the fake does not have: all of it refuses."""
    wanted = re.findall(r'find\("(cu\w+)"', DRIVER.read_text())
    assert "cuInit" in wanted, "driver.cc names its functions in another way"
    there = set(re.findall(r"^FAKE (cu\w+)\(", (FAKES / "fake_libcuda.cc").read_text(), re.M))
    return "".join(f"FAKE {name}() {{ return 801; }}\n" for name in wanted if name not in there)
